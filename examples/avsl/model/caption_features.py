"""Caption features: vectors of a text encoder, cached on disk, then whitened so that captions can be told apart."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .encoders.text import CLIP_TOKENIZER, WORDS, TextEncoder, WordCounts, encoder_path, is_checkpoint
from .feature_table import open_table

log = logging.getLogger(__name__)
CHUNK = 1024  # captions per transaction; a killed run loses at most this many


def encode_captions(
    captions: Sequence[str],
    encoder: str,
    cache: Path,
    batch_size: int = 64,
    *,
    tokenizer: str = CLIP_TOKENIZER,
    allow_stand_in: bool = False,
    argument: str = "text_encoder",
) -> Tensor:
    """Encodes captions, (N, D) float32, with :class:`TextEncoder`, or with :class:`WordCounts` for "words".

    Captions that were encoded before are read from ``cache``, a SQLite file per encoder with one row per caption and
    the caption's hash as key. So only new and changed captions are encoded, and a killed run resumes. The encoder is
    loaded only if a caption is missing. The last three arguments are for AudioCLIP's, as of :class:`TextEncoder`.

    Raises:
        ValueError: if there are no captions.
        OSError: if the cache is damaged; or as :class:`TextEncoder`.
    """
    if not captions:
        raise ValueError("Expected `captions` to hold at least one caption, but got none")
    rows = defaultdict(list)
    for row, caption in enumerate(captions):
        rows[_key(caption)].append(row)
    path = cache / f"captions-{_fingerprint(encoder, tokenizer)}.sqlite"
    with open_table(path, "caption features", "encoded") as table:
        known = {key for (key,) in table.execute("SELECT key FROM features")}
        # Longest first: batches need little padding, and a lack of memory shows at once.
        missing = sorted((captions[r[0]] for key, r in rows.items() if key not in known), key=lambda c: (-len(c), c))
        if missing:
            model: WordCounts | TextEncoder = WordCounts()
            if encoder != WORDS:
                model = TextEncoder(encoder, tokenizer, allow_stand_in=allow_stand_in, argument=argument)
            _encode(missing, model, table, batch_size)
        ((size,),) = table.execute("SELECT length(feature) FROM features LIMIT 1")
        features = torch.empty(len(captions), size // 4)
        for key, feature in table.execute("SELECT key, feature FROM features"):  # one pass, in the order on disk
            for row in rows.get(key, ()):
                features[row] = torch.frombuffer(bytearray(feature), dtype=torch.float32)
    return features


def _encode(
    missing: Sequence[str], model: WordCounts | TextEncoder, table: sqlite3.Connection, batch_size: int
) -> None:
    truncated = 0
    with tqdm(total=len(missing), desc="encoding captions", unit="caption") as bar:
        for first in range(0, len(missing), CHUNK):
            rows: list[tuple[bytes, bytes]] = []
            for i in range(first, min(first + CHUNK, len(missing)), batch_size):
                batch = missing[i : min(i + batch_size, first + CHUNK)]
                vectors, full = model(batch)
                rows += [(_key(c), v.numpy().tobytes()) for c, v in zip(batch, vectors, strict=True)]
                truncated += full
                bar.update(len(batch))
            with table:  # one transaction
                table.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)
    if truncated:
        log.info(
            "%d of %d captions fill all %d tokens of the text encoder; longer captions were cut.",
            truncated,
            len(missing),
            model.limit,
        )


def _key(caption: str) -> bytes:
    return hashlib.sha256(caption.encode()).digest()[:16]


def _fingerprint(encoder: str, tokenizer: str) -> str:
    """A hash of the encoder's name and of the sizes and times of its files, since weights may change.

    For AudioCLIP's, it includes those of the tokenizer.
    """
    facts: list[Any] = []
    for name in (encoder, tokenizer) if is_checkpoint(encoder) else (encoder,):
        path = Path(encoder_path(name))
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        facts += [name, *((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.is_file())]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


class CaptionTable(NamedTuple):
    """Features of all captions of a data set, (N, D), and the row of each caption."""

    features: Tensor
    rows: dict[str, int]

    @classmethod
    def build(cls, captions: Sequence[str], encoder: str, cache: Path, **options: Any) -> CaptionTable:
        """Encodes the distinct ``captions`` with :func:`encode_captions` and its ``options``."""
        distinct = sorted(set(captions))
        return cls(encode_captions(distinct, encoder, cache, **options), {c: i for i, c in enumerate(distinct)})


class TextProjection(nn.Module):
    """Centers and whitens caption features: y = (x − mean) V / sqrt(λ + shrinkage · mean λ), (…, D) → (…, C).

    The mean and the covariance, with eigenvalues λ and C leading eigenvectors V, are those of the training captions.
    Without whitening, captions of one data set are so similar (pairwise cosine 0.8 to 0.9) that τ would exclude nearly
    every negative.

    If C = D, the result is turned back by Vᵀ. Similarities of captions stay the same, and a caption stays in the space
    of the text encoder, which AudioCLIP's frames and sounds share.
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
        """Computes the mean and the whitening from ``features``, (N, D)."""
        self.mean.copy_(features.mean(0))
        values, vectors = torch.linalg.eigh(torch.cov(features.double().T))
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        scale = (values + shrinkage * values.mean()).rsqrt()
        basis = vectors * scale
        out = self.basis.shape[1]
        self.basis.copy_(basis @ vectors.T if out == len(vectors) else basis[:, :out])

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.basis
