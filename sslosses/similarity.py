"""Cosine similarities (Eq. 1) between vectors, and between feature maps and vectors."""

from __future__ import annotations

from torch import Tensor

from sslosses._checks import check_dimensions, check_floating, check_shapes
from sslosses._passes import pixel_cosines
from sslosses._passes import unit as unit
from sslosses._torch import at_least_float32, autocast_off


def cosine(first: Tensor, second: Tensor) -> Tensor:
    r"""Computes the cosine of the angle between vectors along the last dimension.

    .. math:: \mathrm{Sim}(A, B) = \frac{\langle A, B \rangle}{\|A\| \|B\|}

    A and B are the vectors of ``first`` and ``second``, ⟨·, ·⟩ is the scalar product and ‖·‖ the Euclidean norm.

    Args:
        first: (..., C), floating.
        second: (..., C), floating, broadcast against ``first``.

    Returns:
        (...) in [-1, 1], 0 where a vector is zero; float64 if an input is, else float32.

    Raises:
        TypeError: if an input is not a floating tensor.
        ValueError: if the shapes or devices do not fit.

    Source: Um et al., "Object-aware Sound Source Localization via Audio-Visual Scene Understanding", Eq. 1.

    Example:
        >>> import torch
        >>> cosine(torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0.0], [0.0, 5.0], [-3.0, 0.0]]))
        tensor([ 1.,  0., -1.])
    """
    check_floating("first", first)
    check_floating("second", second)
    _check_vectors(first, second)
    first, second = at_least_float32(first, second)
    with autocast_off(first):
        return (unit(first, -1) * unit(second, -1)).sum(-1)


def _check_vectors(first: Tensor, second: Tensor) -> None:
    check_dimensions("first", first, "... C")
    fit = second.ndim >= 1 and first.shape[-1] == second.shape[-1]
    pairs = zip(reversed(first.shape[:-1]), reversed(second.shape[:-1]), strict=False)
    if not fit or any(m != n and 1 not in (m, n) for m, n in pairs):
        raise ValueError(
            f"Expected `second` to have shape (..., {first.shape[-1]}) and to broadcast against `first`, which has "
            f"{tuple(first.shape)}, but got {tuple(second.shape)}"
        )
    if first.shape[-1] == 0:
        raise ValueError(f"Expected `first` to have shape (..., C) with C >= 1, but got {tuple(first.shape)}")
    if first.device != second.device:
        raise ValueError(f"Expected `second` to be on the device of `first` ({first.device}), but got {second.device}")


def similarity_map(features: Tensor, vectors: Tensor) -> Tensor:
    r"""Computes the cosine between every pixel's feature and the vectors of the same sample.

    .. math:: S(x) = \mathrm{Sim}(F(x), l) = \frac{\langle F(x), l \rangle}{\|F(x)\| \|l\|}

    F(x) is the feature of pixel x, and l a vector of the same sample.

    Args:
        features: (B, C, H, W), floating; any scale, any memory layout.
        vectors: (B, C), one vector per sample, or (B, K, C), K vectors per sample.

    Returns:
        (B, H, W) or (B, K, H, W) in [-1, 1], 0 where a vector is zero; float64 if an input is, else float32.

    Raises:
        TypeError: if an input is not a floating tensor.
        ValueError: if the shapes or devices do not fit.

    Source: Um et al., Eq. 1: S_a with one audio feature per sample, S_r (Eq. 7) with K + 1 references.

    Example:
        >>> import torch
        >>> features = torch.eye(2).reshape(1, 2, 1, 2)
        >>> similarity_map(features, torch.tensor([[1.0, 0.0]]))
        tensor([[[1., 0.]]])
        >>> similarity_map(features, torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])).shape
        torch.Size([1, 2, 1, 2])
    """
    check_floating("features", features)
    check_floating("vectors", vectors)
    several = vectors.ndim == 3
    check_shapes(features=(features, "B C H W"), vectors=(vectors, "B K C" if several else "B C"))
    features, vectors = at_least_float32(features, vectors)
    with autocast_off(features):
        directions = unit(vectors, -1)
        maps = _cosines(features, directions if several else directions.unsqueeze(1))
        return maps if several else maps.squeeze(1)


def cross_similarity_map(features: Tensor, vectors: Tensor) -> Tensor:
    r"""Computes the cosine between every pixel's feature and the vectors of all samples.

    .. math:: S_{ij}(x) = \mathrm{Sim}(F_i(x), l_j)

    F_i(x) is the feature of pixel x in sample i, and l_j the j-th vector.

    Args:
        features: (B, C, H, W), floating.
        vectors: (G, C), floating, for example the audio features of the whole batch.

    Returns:
        (B, G, H, W) in [-1, 1], where entry (i, j) is the map of sample i for vector j.

    Raises:
        TypeError: if an input is not a floating tensor.
        ValueError: if the shapes or devices do not fit.

    Source: Um et al., Eq. 1; Chen et al., "Localizing Visual Sounds the Hard Way", compares all pairs of a batch.

    Example:
        >>> import torch
        >>> cross_similarity_map(torch.eye(2).reshape(1, 2, 1, 2), torch.eye(2))
        tensor([[[[1., 0.]],
        <BLANKLINE>
                 [[0., 1.]]]])
    """
    check_floating("features", features)
    check_floating("vectors", vectors)
    check_shapes(features=(features, "B C H W"), vectors=(vectors, "G C"))
    features, vectors = at_least_float32(features, vectors)
    with autocast_off(features):
        return _cosines(features, unit(vectors, -1))


def _cosines(features: Tensor, directions: Tensor) -> Tensor:
    """Cosines of all pixels (B, C, H, W) with unit vectors (B, K, C) or (K, C), as maps."""
    cosines = pixel_cosines(features.flatten(2), directions)
    return cosines.view(*cosines.shape[:2], *features.shape[2:])
