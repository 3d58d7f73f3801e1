"""Rows of predictions that do not hear the sound: the saliency of the frame, and maps of objects."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sslosses.annotations import rasterize
from sslosses.evaluate import job, main
from sslosses.metrics import SoundLocalization, center_surround_saliency

BOXES = [[0.1, 0.2, 0.6, 0.9], [0.5, 0.5, 1.0, 0.8], [0.0, 0.0, 0.3, 0.4]]
CLIPS = [f"clip{i}_00003{i}" for i in range(len(BOXES))]
SALIENCY, OBJECTS = "saliency (frame only)", "object maps (frame only)"


@pytest.fixture
def vggss(tmp_path: Path) -> Path:
    path = tmp_path / "vggss.json"
    entries = [{"file": c, "class": "a bird, singing", "bbox": [b]} for c, b in zip(CLIPS, BOXES, strict=True)]
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder, generator = tmp_path / "frames", np.random.default_rng(0)
    folder.mkdir()
    for clip in CLIPS:  # coarse patches: their saliency survives resizing
        pixels = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
        Image.fromarray(pixels).save(folder / f"{clip}.png")
    return folder


def saved(path: Path, clips: list[str], *shape: int) -> Path:
    generator = np.random.default_rng(1)
    np.savez(path, **{clip: generator.normal(size=shape).astype(np.float32) for clip in clips})
    return path


def run(tmp_path: Path, maps: Path, annotations: Path, form: str, *more: object, protocol: str = "paper") -> int:
    line = ["--maps", maps, "--annotations", annotations, "--format", form, "--protocol", protocol, "--no-sheet"]
    return main([str(a) for a in (*line, "--out", tmp_path / "out", *more)])


def chance(tmp_path: Path, protocol: str = "paper") -> dict[str, Any]:
    return json.loads((tmp_path / "out" / "metrics.json").read_text())["protocols"][protocol]["chance"]


def direct(protocol: str, maps: Any, truths: Any, task: str = "single", layout: str = "one") -> dict[str, float]:
    metric = SoundLocalization(protocol, task=task, layout=layout)
    metric.update(maps, truths)
    values = metric.compute()
    return {name: float(values[name]) for name in metric.metrics}


def saliency_of(frames: Path, clip: str) -> Tensor:
    pixels = np.asarray(Image.open(frames / f"{clip}.png").resize((224, 224)))
    return center_surround_saliency(torch.tensor(pixels).permute(2, 0, 1)[None] / 255)


def test_saliency_is_a_row_beside_chance(tmp_path: Path, vggss: Path, frames: Path, capsys: Any) -> None:
    maps = saved(tmp_path / "maps.npz", CLIPS, 7, 7)
    protocols = "paper,tvsl,ez-vsl"
    assert run(tmp_path, maps, vggss, "vggss", "--frames-dir", frames, "--saliency", protocol=protocols) == 0
    truths = torch.stack([rasterize([box])[None] for box in BOXES])
    expected = torch.stack([saliency_of(frames, clip) for clip in CLIPS])
    for name in protocols.split(","):
        found = chance(tmp_path, name)
        assert list(found) == ["centered Gaussian", "whole frame", "random maps", SALIENCY]
        # tvsl reads low values as sounding
        assert found[SALIENCY] == pytest.approx(direct(name, -expected if name == "tvsl" else expected, truths))
    assert f"random maps | {SALIENCY} |" in capsys.readouterr().out
    assert f"{SALIENCY} & " in (tmp_path / "out" / "table.tex").read_text()
    assert run(tmp_path, maps, vggss, "vggss", "--frames-dir", frames, "--saliency", "--no-chance") == 0
    assert list(chance(tmp_path)) == [SALIENCY]
    assert run(tmp_path, maps, vggss, "vggss", "--frames-dir", frames) == 0
    assert SALIENCY not in chance(tmp_path)  # only if it is asked for


@pytest.mark.parametrize(("layout", "axis"), [("stacked", 1), ("side-by-side", 2)])
def test_saliency_of_mixtures_is_per_frame(tmp_path: Path, vggss: Path, frames: Path, layout: str, axis: int) -> None:
    path = tmp_path / "duet.csv"
    path.write_text("".join(f"{a},a_bird_singing,{b},a_bird_singing\n" for a, b in pairwise(CLIPS)))
    shape = (2, 14, 7) if axis == 1 else (2, 7, 14)
    maps = saved(tmp_path / "maps.npz", [f"{a}+{b}" for a, b in pairwise(CLIPS)], *shape)
    more = ("--layout", layout, "--frames-dir", frames, "--saliency", "--no-chance")
    assert run(tmp_path, maps, path, "vggsound-duet", *more) == 0
    truths = torch.stack([torch.stack([rasterize([b]) for b in pair]) for pair in pairwise(BOXES)])
    pairs = [torch.cat([saliency_of(frames, clip) for clip in pair], axis) for pair in pairwise(CLIPS)]
    # one map for both sources
    expected = direct("paper", torch.stack(pairs).expand(-1, 2, -1, -1), truths, "mixtures", layout)
    assert chance(tmp_path)[SALIENCY] == pytest.approx(expected)


def test_saliency_of_a_pair_is_that_of_its_frame(tmp_path: Path, vggss: Path, frames: Path) -> None:
    pairs = [f"{CLIPS[0]}+{CLIPS[1]}", f"{CLIPS[1]}+elsewhere"]
    path = tmp_path / "pairs.csv"
    path.write_text("video,audio,label\n" + "".join(f"{pair.replace('+', ',')},non-sounding\n" for pair in pairs))
    maps = saved(tmp_path / "maps.npz", [*CLIPS, *pairs], 7, 7)
    more = ("--frames-dir", frames, "--saliency", "--no-chance")
    assert run(tmp_path, maps, path, "vggss-extended", *more, protocol="slavc") == 0
    truths = [rasterize([box])[None] for box in BOXES] + [torch.zeros(0, 224, 224)] * 2
    expected = torch.stack([saliency_of(frames, clip) for clip in (*CLIPS, *CLIPS[:2])])
    assert chance(tmp_path, "slavc")[SALIENCY] == pytest.approx(direct("slavc", expected, truths))


@pytest.mark.filterwarnings("ignore:.* samples have more maps:UserWarning")
@pytest.mark.parametrize("count", [None, 1, 2, 3])
def test_object_maps(tmp_path: Path, count: int | None) -> None:
    """One map is that of every source; several are scored as they are."""
    entries = [
        {"file": c, "class_src1": "cello", "bbox_src1": [x, 0, 0.4, 0.5], "class_src2": "flute", "bbox_src2": [0.5] * 4}
        for c, x in (("one", 0.0), ("two", 0.1))
    ]
    path = tmp_path / "music_duet.json"
    path.write_text(json.dumps(entries))
    maps = saved(tmp_path / "maps.npz", ["one", "two"], 2, 7, 7)
    objects = saved(tmp_path / "objects.npz", ["one", "two", "another"], *([] if count is None else [count]), 5, 5)
    assert run(tmp_path, maps, path, "music-duet", "--object-maps", objects, "--no-chance", protocol="noprior") == 0
    with np.load(objects) as arrays:
        tensors = [torch.tensor(arrays[clip]).reshape(-1, 5, 5) for clip in ("one", "two")]
    boxes = [[[(x, 0, x + 0.4, 0.5)], [(0.5, 0.5, 1.0, 1.0)]] for x in (0.0, 0.1)]
    used = [m if len(m) > 1 else m.repeat(2, 1, 1) for m in tensors]
    assert chance(tmp_path, "noprior") == {OBJECTS: pytest.approx(direct("noprior", used, boxes, "mixtures"))}


def test_every_step_is_reported(tmp_path: Path, vggss: Path, frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    totals, ticks = [], []

    class Bar:
        def __init__(self, total: int) -> None:
            totals.append(total)

        def __enter__(self) -> Any:
            return ticks.append

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(job, "progress", Bar)
    maps = saved(tmp_path / "maps.npz", CLIPS, 7, 7)
    more = ("--frames-dir", frames, "--saliency", "--object-maps", maps)
    assert run(tmp_path, maps, vggss, "vggss", *more, protocol="paper,lvs") == 0
    assert totals == [sum(ticks)]


def refused(tmp_path: Path, capsys: Any, message: str) -> None:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_clips_without_a_frame_or_an_object_map(tmp_path: Path, vggss: Path, frames: Path, capsys: Any) -> None:
    maps = saved(tmp_path / "maps.npz", CLIPS, 7, 7)
    assert run(tmp_path, maps, vggss, "vggss", "--saliency") == 2
    refused(tmp_path, capsys, "Expected --frames-dir with --saliency, but got no folder of frames")
    objects = saved(tmp_path / "objects.npz", CLIPS[:2], 7, 7)
    assert run(tmp_path, maps, vggss, "vggss", "--object-maps", objects) == 2
    refused(tmp_path, capsys, f"Expected an object map of every clip, but {objects} has none of 1: {CLIPS[2]}")
    empty = saved(tmp_path / "empty.npz", CLIPS, 0, 7, 7)
    assert run(tmp_path, maps, vggss, "vggss", "--object-maps", empty) == 2
    refused(tmp_path, capsys, f"{CLIPS[0]}: expected at least one object map, but got none")
    last = saved(tmp_path / "last.npz", CLIPS, 7, 7, 1)
    assert run(tmp_path, maps, vggss, "vggss", "--object-maps", last) == 2
    refused(tmp_path, capsys, f"{CLIPS[0]}: expected maps")
    (frames / f"{CLIPS[1]}.png").write_bytes(b"broken")
    more = ("--saliency", "--frames-dir", frames)
    assert run(tmp_path, maps, vggss, "vggss", *more) == 2
    refused(tmp_path, capsys, f"{CLIPS[1]}: expected a frame in {frames} that can be read")
    (frames / f"{CLIPS[1]}.png").unlink()
    assert run(tmp_path, maps, vggss, "vggss", *more) == 2
    refused(tmp_path, capsys, f"Expected a frame (.jpg or .png) of every clip, but {frames} has none of 1: {CLIPS[1]}")
