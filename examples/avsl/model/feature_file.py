"""Features of a frozen encoder on disk: computed once per frame or sound, then read in every epoch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from .encoders.tower import Features, Tower
from .feature_table import errors_name_table, open_table

log = logging.getLogger(__name__)
FORMAT = 1  # to be raised when the same weights and files give other features
BATCH = 32  # inputs per transaction; a killed run loses at most this many
CPU_BATCH = 4  # inputs at a time on a CPU, whose caches hold no more: three times as fast as 32
_TEXTS = ("features", "computed")  # what a file holds, and how it was made
_LARGE = 2**30  # bytes from which the log says how much is written


class FeatureFile:
    """A SQLite file with the features of one encoder, in half precision, one row per input.

    It can be sent to other processes; each opens the file for itself.

    Args:
        path: the file.
        shape: shape of the features of one input.
    """

    def __init__(self, path: Path, shape: Sequence[int]) -> None:
        self.path, self.shape = path, tuple(shape)
        self._opened: tuple[int, sqlite3.Connection] | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": None}

    def read(self, key: bytes) -> Features:
        """Returns the features of one input, without a batch dimension.

        Raises:
            OSError: if the file can't be read, or lacks the input.
        """
        with errors_name_table(self.path, *_TEXTS):
            if self._opened is None or self._opened[0] != os.getpid():  # a connection may not cross a fork
                self._opened = os.getpid(), sqlite3.connect(self.path, timeout=60, check_same_thread=False)
            row = self._opened[1].execute("SELECT feature FROM features WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise OSError(f"Expected {self.path} to hold the features of all inputs, but some were removed. Run again.")
        return Features(torch.frombuffer(bytearray(row[0]), dtype=torch.float16).view(self.shape))


@torch.no_grad()
def compute_features(
    encoder: Tower, keys: Sequence[bytes], load: Callable[[int], Tensor], folder: Path, *, kind: str
) -> FeatureFile:
    """Computes the features of a frozen ``encoder`` that are not in its file yet, and returns the file.

    The file is kept for the next runs. Its name depends on the encoder's weights and on the size of its inputs. A
    killed call resumes. Of several processes that need the same file, one computes and the others wait for it.

    Args:
        encoder: the encoder, on the device to compute on.
        keys: one key per input; inputs of equal keys are equal. See :func:`file_key`.
        load: returns the input of an index.
        folder: where the file is.
        kind: ``"frames"`` or ``"sounds"``, for the name of the file and for messages.

    Raises:
        OSError: if the features do not fit on the disk, or the file is damaged.
        ValueError: if features leave the range of half precision.
    """
    device = next(encoder.parameters()).device
    size = CPU_BATCH if device.type == "cpu" else BATCH
    first = load(0)
    shape = encoder.features(first[None].to(device)).shape[1:]
    path = folder / f"features-{kind}-{_fingerprint(encoder, first)}.sqlite"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{path.stem}.lock"), open_table(path, *_TEXTS, page_size=65536) as table:
        known = {key for (key,) in table.execute("SELECT key FROM features")}
        missing = list({key: i for i, key in enumerate(keys) if key not in known}.values())
        _check_space(len(missing) * 2 * shape.numel(), path, kind)
        with tqdm(total=len(missing), desc=f"features of {kind}", unit=kind[:-1], disable=not missing) as bar:
            for start in range(0, len(missing), BATCH):
                chosen = missing[start : start + BATCH]
                inputs = torch.stack([load(i) for i in chosen]).to(device).split(size)
                features = torch.cat([encoder.features(part).half().cpu() for part in inputs])
                if not features.isfinite().all():
                    raise ValueError(
                        f"Expected the encoder's features of {kind} to fit half precision, but some are NaN or above "
                        "65504. Use --cache-features false"
                    )
                rows = [(keys[i], feature.numpy().tobytes()) for i, feature in zip(chosen, features, strict=True)]
                with table:  # one transaction
                    table.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)
                bar.update(len(chosen))
    return FeatureFile(path, shape)


def file_key(path: Path, extra: str = "") -> bytes:
    """Returns a key of a file's content: a hash of its path, size and time, and of ``extra``."""
    facts = path.stat()
    return hashlib.sha256(f"{path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\0{extra}".encode()).digest()[:16]


def _fingerprint(encoder: Tower, example: Tensor) -> str:
    """A hash of the encoder's architecture and frozen weights, and of the size of its inputs."""
    digest = hashlib.sha256(json.dumps([FORMAT, encoder.architecture, list(example.shape)], sort_keys=True).encode())
    for name, value in sorted(encoder.tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()))
    return digest.hexdigest()[:16]


def _check_space(size: int, path: Path, kind: str) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OSError(
            f"The features of {kind} take {size / 1e9:.1f} GB in {path}, but only {free / 1e9:.1f} GB are free there. "
            "Choose another --data, or compute them anew in every epoch with --cache-features false."
        )
    if size > _LARGE:
        log.info("The features of %s take %.1f GB in %s.", kind, size / 1e9, path)
