"""A small model with random weights, a picture and a sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from avsl.config import Config
from avsl.model.localizer import Localizer
from PIL import Image

from ..conftest import TINY


@pytest.fixture(autouse=True)
def small_models(one_thread: None) -> None:
    """All tests of this folder use one thread."""


@pytest.fixture(scope="session")
def model() -> Localizer:
    # With these thresholds, a model with random weights finds sources.
    config = Config(**TINY, workers=0, peak_threshold=-1.0, background_threshold=1.0, merge_threshold=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Localizer(config.as_dict(), 10).eval()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="JPEG")
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_sound(tmp_path / "sound", np.random.default_rng(0).uniform(-0.5, 0.5, 32_000))


def write_sound(path: Path, samples: np.ndarray, kind: str = "WAV", rate: int = 16_000) -> Path:
    soundfile.write(path, samples, rate, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return path
