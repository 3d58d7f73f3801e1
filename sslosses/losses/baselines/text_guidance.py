"""T-VSL's parts: gates, what a name picks out of a frame and a sound, and maps per name."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses._checks import check_count, check_flag, check_floating, check_number, check_shapes
from sslosses._torch import at_least_float32, autocast_off
from sslosses.similarity import unit

LARGEST_SCALE = 100.0
_ROWS = 4096  # pixels of all samples and names whose hidden layers are in memory at the same time
#: Its logarithm in float32. A rounded start above the clamp's bound would have no gradient, and stay there for good.
_LARGEST_LOG = float(torch.tensor(math.log(LARGEST_SCALE), dtype=torch.float32))


class TextGuidedHeads(nn.Module):
    r"""The trained parts of T-VSL between its frozen encoders and its loss: six gates, an MLP and a scale.

    .. math:: \mathrm{gate}(z) = w z + (1 - w)\, \mathrm{MLP}(z)

    w is a trained number that starts at 1, so at first a gate changes nothing, and its MLP has a gradient of 0. The MLP
    of a gate has one hidden layer and GELU, and so has ``fusion``, which is not gated.

    Args:
        dim: C, the number of channels of the features, at least 1.
        mlp_ratio: width of the hidden layer of a gate's MLP over C, at least 1.

    Attributes:
        visual_tokens: gate of the frame's features.
        audio_tokens: gate of the sound's features.
        image_pick: gate of what a name picks out of a frame, before it is compared with all names.
        audio_pick: the same for a sound.
        query: gate of what a name picks out of a sound, before it is compared with frames.
        key: gate of what a name picks out of a frame, before it is compared with sounds.
        fusion: MLP 2C → 2C → 2C of the means of both feature maps, for the presence of classes.
        log_presence_scale: logarithm of the scale of the presence's logits. The scale starts at 100.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of range.

    Source: Mahmud et al., "T-VSL: Text-Guided Visual Sound Source Localization in Mixtures", its public code; not
    compared with the paper's text.

    Example:
        >>> import torch
        >>> heads = TextGuidedHeads(16)
        >>> features = torch.randn(3, 5, 16)
        >>> torch.equal(heads.query(features), features)  # at the start
        True
        >>> print(f"{heads.presence_scale:.0f}")
        100
    """

    def __init__(self, dim: int = 1024, *, mlp_ratio: int = 2) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)
        hidden = self.dim * check_count("mlp_ratio", mlp_ratio)
        self.visual_tokens, self.audio_tokens = _Gate(self.dim, hidden), _Gate(self.dim, hidden)
        self.image_pick, self.audio_pick = _Gate(self.dim, hidden), _Gate(self.dim, hidden)
        self.query, self.key = _Gate(self.dim, hidden), _Gate(self.dim, hidden)
        self.fusion = _Mlp(2 * self.dim, 2 * self.dim)
        self.log_presence_scale = nn.Parameter(torch.tensor(_LARGEST_LOG))

    @property
    def presence_scale(self) -> Tensor:
        """The scale of the presence's logits, from 1 to 100."""
        return self.log_presence_scale.clamp(0, _LARGEST_LOG).exp()

    def extra_repr(self) -> str:
        """Returns the size, for printing."""
        return f"dim={self.dim}"


class _Mlp(nn.Module):
    """An MLP of one hidden layer, which takes inputs of any dtype and returns that dtype."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = self.second(F.gelu(self.first(value.to(self.first.weight.dtype))))
        return result.to(value.dtype)

    def of_multiples(self, factors: Tensor, products: Tensor) -> Tensor:
        """The MLP (B, K, P, C) of vectors times factors (B, K, P), from the products of the vectors, (B, 1, P, ·)."""
        hidden = factors[..., None].to(products.dtype) * products + self.first.bias
        result: Tensor = self.second(F.gelu(hidden))
        return result.to(factors.dtype)


class _Gate(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.weight, self.mlp = nn.Parameter(torch.tensor(1.0)), _Mlp(dim, hidden)

    def forward(self, value: Tensor) -> Tensor:
        weight = self.weight.to(value.dtype)
        result: Tensor = weight * value + (1 - weight) * self.mlp(value)
        return result

    def products(self, value: Tensor) -> Tensor:
        """Vectors (..., C) times the weights of the first layer."""
        return F.linear(value.to(self.mlp.first.weight.dtype), self.mlp.first.weight)

    def of_multiples(self, factors: Tensor, value: Tensor, products: Tensor) -> Tensor:
        """The gate (B, K, P, C) of vectors (B, 1, P, C) times factors (B, K, P), from :meth:`products` of the vectors.

        So the first layer is applied once for all K, not K times.
        """
        weight = self.weight.to(value.dtype)
        result: Tensor = weight * factors[..., None] * value + (1 - weight) * self.mlp.of_multiples(factors, products)
        return result


def check_heads(heads: Any, channels: int | None = None, device: torch.device | None = None) -> None:
    """Raise unless ``heads`` is None, or heads of this number of channels on this device."""
    if heads is None:
        return
    if not isinstance(heads, TextGuidedHeads):
        raise TypeError(f"Expected `heads` to be TextGuidedHeads or None, but got {type(heads).__name__}")
    if channels is not None and heads.dim != channels:
        raise ValueError(f"Expected `heads` to have dim = {channels}, the channels of `visual`, but got {heads.dim}")
    if device is not None and heads.log_presence_scale.device != device:
        raise ValueError(
            f"Expected `heads` to be on the device of `visual` ({device}), but got {heads.log_presence_scale.device}"
        )


def check_presence_scale(presence_scale: float | None) -> float | None:
    """Return the scale as a Python number, or None."""
    return None if presence_scale is None else check_number("presence_scale", presence_scale, above=0)


def check_features(visual: Tensor, audio: Tensor, **others: tuple[Tensor, str]) -> None:
    """Check types, shapes and devices of both feature maps and other floating arguments."""
    arguments = {"visual": (visual, "B C H W"), "audio": (audio, "B C T F"), **others}
    for name, (value, _) in arguments.items():
        check_floating(name, value)
    sizes = check_shapes(**arguments)
    if 0 in (sizes["T"], sizes["F"]):
        raise ValueError(f"Expected `audio` to have shape (B, C, T, F) with T, F >= 1, but got {tuple(audio.shape)}")


class Tokens(NamedTuple):
    """Features after their gates, as vectors of length 1.

    pixels: (B, P, C). cells: (B, Q, C), of the sound. fused: (B, 2C), made from the means of both.
    """

    pixels: Tensor
    cells: Tensor
    fused: Tensor


def make_tokens(visual: Tensor, audio: Tensor, heads: TextGuidedHeads | None, normalize_audio: bool) -> Tokens:
    """Apply the first two gates to feature maps (B, C, H, W) and (B, C, T, F), and the fusion to their means."""
    pixels, cells = unit(visual.flatten(2).mT, -1), audio.flatten(2).mT
    if normalize_audio:
        cells = unit(cells, -1)
    if heads is not None:
        pixels, cells = heads.visual_tokens(pixels), heads.audio_tokens(cells)
    fused = torch.cat([pixels.mean(1), cells.mean(1)], -1)
    if heads is not None:
        fused = heads.fusion(fused)
    return Tokens(unit(pixels, -1), unit(cells, -1), unit(fused, -1))


def text_masks(tokens: Tensor, text: Tensor) -> Tensor:
    """The masks m (B, K, P) of names (B, K, C) over tokens (B, P, C): length 1, or 0 for names orthogonal to all."""
    return unit(text @ tokens.mT, -1)


def pick(tokens: Tensor, text: Tensor) -> Tensor:
    """What names (B, K, C) pick out of tokens (B, P, C): (B, K, C), the mean under the mask."""
    return text_masks(tokens, text) @ tokens / tokens.shape[1]


def gated(gate: str, heads: TextGuidedHeads | None, value: Tensor) -> Tensor:
    """The value (..., C) after a gate of the heads, as vectors of length 1."""
    return unit(value if heads is None else heads.get_submodule(gate)(value), -1)


def presence_logits(fused: Tensor, text: Tensor, heads: TextGuidedHeads | None, presence_scale: float | None) -> Tensor:
    """Logits (B, K) of the presence of names (B, K, C) or (K, C)."""
    first, second = fused.chunk(2, -1)
    cosines: Tensor = (text @ (first + second)[..., None])[..., 0] / math.sqrt(2)
    if presence_scale is None and heads is not None:
        return heads.presence_scale.to(cosines.dtype) * cosines
    return (LARGEST_SCALE if presence_scale is None else presence_scale) * cosines


class TextGuidedQueries(NamedTuple):
    """What :func:`text_guided_queries` returns.

    Attributes:
        presence: (B, K), logits of the presence of each class in frame and sound.
        queries: (B, K, C), what each name picks out of the sound, to be compared with pixels; length 1.
        pixels: (B, C, H, W), the pixels to compare them with; length 1.
    """

    presence: Tensor
    queries: Tensor
    pixels: Tensor


def text_guided_queries(
    visual: Tensor,
    audio: Tensor,
    text: Tensor,
    *,
    heads: TextGuidedHeads | None = None,
    normalize_audio: bool = False,
    presence_scale: float | None = None,
) -> TextGuidedQueries:
    r"""Computes what names pick out of a sound, and whether their classes are present, as T-VSL does.

    .. math::
        q_k = \mathrm{unit}\big(\mathrm{gate}_q(\operatorname{mean}_z m_{kz} y_z)\big), \quad
        m_{kz} = \frac{\langle y_z, t_k \rangle}{\|\langle y_\cdot, t_k \rangle\|}, \quad
        l_k = \frac{s}{\sqrt 2} \langle f, [t_k; t_k] \rangle

    y_z is the cell z of the sound, after the gate of the audio tokens, and scaled to length 1. :math:`q_k` is what name
    :math:`t_k` picks out of it. :math:`l_k` is the logit of the presence of class k. The other symbols are those of
    :func:`text_guided_loss`. The published system does not predict classes at test time: it is given their names.

    Args:
        visual: (B, C, H, W), floating, visual features; any length.
        audio: (B, C, T, F), floating, features of the sound before pooling.
        text: (B, K, C), floating, text features of K names per sample; any length.
        heads: as in :func:`text_guided_loss`.
        normalize_audio: as in :func:`text_guided_loss`.
        presence_scale: as in :func:`text_guided_loss`.

    Returns:
        :class:`TextGuidedQueries`; float64 if an input is, else float32.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range.

    Source: as :class:`TextGuidedHeads`. ``pixels`` without a mask is an addition.

    Example:
        >>> import torch
        >>> sound = torch.tensor([[0.8, 0.0], [0.6, 1.0]])[None, :, :, None]
        >>> text_guided_queries(torch.eye(2)[None, :, :, None], sound, torch.eye(2)[None]).queries
        tensor([[[0.8000, 0.6000],
                 [0.3328, 0.9430]]])
    """
    presence_scale = check_presence_scale(presence_scale)
    visual, audio, text = _checked(visual, audio, text, heads, normalize_audio)
    with autocast_off(visual):
        tokens, text = make_tokens(visual, audio, heads, normalize_audio), unit(text, -1)
        pixels = gated("key", heads, tokens.pixels).mT.reshape(visual.shape)
        queries = gated("query", heads, pick(tokens.cells, text))
        presence = presence_logits(tokens.fused, text, heads, presence_scale)
    return TextGuidedQueries(presence, queries, pixels)


def text_guided_maps(
    visual: Tensor,
    audio: Tensor,
    text: Tensor,
    *,
    heads: TextGuidedHeads | None = None,
    normalize_audio: bool = False,
) -> Tensor:
    r"""Computes T-VSL's localization maps, one per name.

    .. math::
        h_k(x) = \frac{\langle v_k(x), q_k \rangle}{\|\langle v_k(\cdot), q_k \rangle\|}, \quad
        v_k(x) = \mathrm{unit}\big(\mathrm{gate}_v(m_{kx} F(x))\big)

    The symbols are those of :func:`text_guided_loss` and :func:`text_guided_queries`. Each map has length 1. As long as
    the gate changes nothing, the mask :math:`m_{kx}` only has an effect through its sign: a pixel that is opposite to
    both the name and the sound is high. Features whose similarities with names are all above 0, as CLIP's mostly are,
    have no such pixels.

    The public evaluation takes the negative of these maps, because it reads attention tokens of CLIP, whose
    similarities are inverted. Similarities of the values of CLIP's attention are not inverted.

    Args:
        visual: (B, C, H, W), floating, visual features; any length.
        audio: (B, C, T, F), floating, features of the sound before pooling.
        text: (B, K, C), floating, text features of K names per sample; any length.
        heads: as in :func:`text_guided_loss`.
        normalize_audio: as in :func:`text_guided_loss`.

    Returns:
        (B, K, H, W); float64 if an input is, else float32. Without gradients, memory is bounded: at most 4096 pixels
        times names are in memory as vectors, or one name of all samples if that is more.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit.

    Source: as :class:`TextGuidedHeads`.

    Example:
        >>> import torch
        >>> frame = torch.tensor([[1.0, 0.6], [0.0, 0.8]])[None, :, :, None]
        >>> sound = torch.tensor([[0.8, 0.0], [0.6, 1.0]])[None, :, :, None]
        >>> text_guided_maps(frame, sound, torch.eye(2)[None])[0, 0]
        tensor([[0.6402],
                [0.7682]])
    """
    visual, audio, text = _checked(visual, audio, text, heads, normalize_audio)
    with autocast_off(visual):
        tokens, text = make_tokens(visual, audio, heads, normalize_audio), unit(text, -1)
        queries = gated("query", heads, pick(tokens.cells, text))
        masks = text_masks(tokens.pixels, text)
        maps = unit(_similarities(masks, tokens.pixels, queries, heads), -1)
        return maps.view(*maps.shape[:2], *visual.shape[2:])


def _checked(
    visual: Tensor, audio: Tensor, text: Tensor, heads: TextGuidedHeads | None, normalize_audio: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Check the arguments of both functions above, and return the tensors in the dtype of the result."""
    check_flag("normalize_audio", normalize_audio)
    check_heads(heads)
    check_features(visual, audio, text=(text, "B K C"))
    check_heads(heads, visual.shape[1], visual.device)
    visual, audio, text = at_least_float32(visual, audio, text)
    return visual, audio, text


def _similarities(masks: Tensor, pixels: Tensor, queries: Tensor, heads: TextGuidedHeads | None) -> Tensor:
    """The similarities (B, K, P) of pixels (B, P, C) under masks (B, K, P) with queries (B, K, C).

    They are computed for a few names at a time: the gate's hidden layers for all names could take gigabytes.
    """
    pixels = pixels[:, None]
    products = None if heads is None else heads.key.products(pixels)

    def part(mask: Tensor, query: Tensor) -> Tensor:
        if heads is None or products is None:
            values = mask[..., None] * pixels
        else:
            values = heads.key.of_multiples(mask, pixels, products)
        return (unit(values, -1) @ query[..., None])[..., 0]

    count = max(1, _ROWS // max(1, len(masks) * masks.shape[2]))
    parts = zip(torch.split(masks, count, 1), torch.split(queries, count, 1), strict=True)
    return torch.cat([part(*each) for each in parts], 1)
