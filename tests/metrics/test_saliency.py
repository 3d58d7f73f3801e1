"""Saliency of a frame, against loops written from its formula."""

import math

import numpy as np
import pytest
import torch

from sslosses.metrics import center_surround_saliency


def blur(x, sigma):
    """One pixel at a time: the Gaussian is cut off at the edge and scaled to sum to 1."""
    height, width = x.shape
    result = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            total = weights = 0.0
            for k in range(height):
                for m in range(width):
                    weight = math.exp(-((i - k) ** 2 + (j - m) ** 2) / (2 * sigma**2))
                    total += weight * x[k, m]
                    weights += weight
            result[i, j] = total / weights
    return result


def slow(frame):
    r, g, b = frame
    saliency = np.zeros_like(r)
    for share in (64, 32, 16):
        sigma = min(r.shape) / share
        for channel in ((r + g + b) / 3, r - g, b - (r + g) / 2):
            saliency += abs(blur(channel, sigma) - blur(channel, 4 * sigma))
    return saliency / saliency.max() if saliency.max() > 0 else saliency


def test_equals_the_loop():
    generator = np.random.default_rng(0)
    frames = generator.random((3, 3, 9, 12))
    frames[1, :, 2:5, 3:7] = 0  # black
    frames[2] = 0.25  # uniform, with one blue pixel
    frames[2, 2, 4, 4] = 1
    found = center_surround_saliency(torch.tensor(frames))
    for frame, saliency in zip(frames, found, strict=True):
        assert np.abs(saliency.numpy() - slow(frame)).max() < 1e-9


@pytest.mark.parametrize("color", [(0.1, 0.1, 0.1), (1.0, 0.3, 1 / 3), (0.0, 0.0, 0.0)])
def test_a_uniform_frame_is_not_salient(color):
    frames = torch.tensor(color)[None, :, None, None].expand(1, 3, 33, 20)
    assert not center_surround_saliency(frames).any()


@pytest.mark.parametrize("spot", [(1.0, 1.0, 1.0), (0.5, 0.2, 0.5), (0.5, 0.5, 1.0)])
def test_what_stands_out_by_brightness_or_color_is_salient(spot):
    frames = torch.full((2, 3, 64, 48), 0.5)
    frames[0, :, 40:46, 8:14] = torch.tensor(spot)[:, None, None]
    saliency = center_surround_saliency(frames)
    row, column = divmod(int(saliency[0].argmax()), 48)
    assert 40 <= row < 46
    assert 8 <= column < 14
    assert float(saliency[0].max()) == 1
    assert float(saliency[0, :20, 30:].max()) < 0.05
    assert not saliency[1].any()  # frames do not mix


def test_half_precision_autocast_and_no_frame():
    frames = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = center_surround_saliency(frames)
    assert torch.allclose(center_surround_saliency(frames.half()), expected, atol=1e-2)
    assert center_surround_saliency(frames.half()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(center_surround_saliency(frames), expected)
    assert center_surround_saliency(frames[:0]).shape == (0, 8, 8)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "`frames` to have a floating dtype, but got torch.uint8"),
        (torch.zeros(1, 1, 4, 4), r"`frames` to have shape \(B, 3, H, W\), but got \(1, 1, 4, 4\)"),
        (torch.zeros(3, 4, 4), r"`frames` to have shape \(B, 3, H, W\)"),
        (torch.zeros(1, 3, 0, 4), r"`frames` to have shape \(B, 3, H, W\)"),
        (torch.full((1, 3, 4, 4), 255.0), r"`frames` to hold values in \[0, 1\]"),
        (torch.full((1, 3, 4, 4), math.nan), r"`frames` to hold values in \[0, 1\]"),
        ([[0.5]], "`frames` to be a tensor"),
    ],
)
def test_wrong_frames(frames, message):
    with pytest.raises((TypeError, ValueError), match=message):
        center_surround_saliency(frames)
