"""The command that scores saved maps against masks."""

import importlib
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sslosses.evaluate.masks import main
from sslosses.metrics import AVSBenchSegmentation, SemanticSegmentation
from sslosses.metrics.functional import resize_bilinear

module = importlib.import_module("sslosses.evaluate.masks")
GENERATOR = np.random.default_rng(0)
TRUTHS = {name: GENERATOR.integers(0, 2, (2, 6, 5), np.uint8) for name in "abc"}
MAPS = {name: GENERATOR.normal(size=(2, 6, 5)).astype(np.float32) for name in "abc"}


@pytest.fixture
def folder(tmp_path):
    for name, masks in TRUTHS.items():
        (tmp_path / "masks" / "test" / name).mkdir(parents=True)
        for i, mask in enumerate(masks):
            Image.fromarray(255 * mask).save(tmp_path / "masks" / "test" / name / f"{name}_{i}.png")
    np.savez(tmp_path / "maps.npz", **MAPS)
    return tmp_path


def arguments(folder, *more):
    paths = {"--maps": "maps.npz", "--masks": "masks", "--out": "scores"}
    return [text for name, path in paths.items() for text in (name, str(folder / path))] + list(more)


def written(folder):
    return json.loads((folder / "scores" / "metrics.json").read_text())


def expected(clips, **options):
    metric = AVSBenchSegmentation(scale="logits", **options)
    for clip in clips:
        metric.update(torch.tensor(MAPS[clip])[None], torch.tensor(TRUTHS[clip])[None])
    return {name: value.item() for name, value in metric.compute().items()}


def test_binary_masks(folder, capsys):
    assert main(arguments(folder, "--scale", "logits", "--videos-per-batch", "2")) == 0
    result = written(folder)
    assert result["metrics"] == expected("abc", videos_per_batch=2)
    assert (result["clips"], result["settings"]["videos_per_batch"]) == (["a", "b", "c"], 2)
    printed = capsys.readouterr().out
    assert printed == (folder / "scores" / "table.md").read_text()
    assert f"| M_F (oracle)        | {100 * result['metrics']['M_F (oracle)']:5.1f} |" in printed
    assert "Scored 3 of 3 clips with masks; 2 videos per batch" in printed
    assert sorted(path.name for path in (folder / "scores").iterdir()) == ["metrics.json", "table.md"]


def test_listed_clips_in_their_order(folder):
    (folder / "list.csv").write_text("c,test\na,test\n")
    assert main(arguments(folder, "--scale", "logits", "--clips", str(folder / "list.csv"))) == 0
    assert written(folder)["clips"] == ["c", "a"]
    assert written(folder)["metrics"] == expected("ca")
    assert written(folder)["share"].startswith("Scored 2 of 3 clips")


def test_classes(folder):
    for name, masks in TRUTHS.items():
        for i, mask in enumerate(masks):
            Image.fromarray(2 * mask).save(folder / "masks" / "test" / name / f"{name}_{i}.png")
    ids = {name: (maps > 0).astype(np.int64) * 2 for name, maps in MAPS.items()}
    np.savez(folder / "maps.npz", **ids)
    assert main(arguments(folder, "--classes", "3", "--without", "0")) == 0
    metric = SemanticSegmentation(3, without=(0,))
    for name in TRUTHS:
        metric.update(torch.tensor(ids[name]), 2 * torch.tensor(TRUTHS[name]))
    assert written(folder)["metrics"] == {name: value.item() for name, value in metric.compute().items()}


def test_maps_are_resized_on_request_only(folder, capsys):
    small = {name: maps[:, :3, :2] for name, maps in MAPS.items()}
    np.savez(folder / "maps.npz", **small)
    assert main(arguments(folder, "--scale", "logits")) == 2
    assert "error: a: expected maps of 6 × 5 like the masks, but got 3 × 2. Pass --resize" in capsys.readouterr().err
    assert not (folder / "scores").exists()
    assert main(arguments(folder, "--scale", "logits", "--resize")) == 0
    metric = AVSBenchSegmentation(scale="logits")
    for name in TRUTHS:
        metric.update(resize_bilinear(torch.tensor(small[name]), (6, 5))[None], torch.tensor(TRUTHS[name])[None])
    assert written(folder)["metrics"]["M_J"] == metric.compute()["M_J"]


def test_nothing_to_average_is_null(folder):
    for path in (folder / "masks").rglob("*.png"):
        Image.new("L", (5, 6)).save(path)
    assert main(arguments(folder, "--scale", "logits")) == 0
    assert written(folder)["metrics"]["M_F pooled (oracle)"] is None
    assert "| M_F pooled (oracle) |     – |" in (folder / "scores" / "table.md").read_text()


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ([], "either --scale, for binary masks, or --classes"),
        (["--scale", "logits", "--classes", "2"], "either --scale"),
        (["--scale", "probabilities"], r"a: Expected `maps` to lie in [0, 1]"),
        (["--scale", "logits", "--videos-per-batch", "0"], "`videos_per_batch`"),
        (["--classes", "256"], "a: expected maps of class ids, which are integers"),
        (["--classes", "2"], "a_0.png: expected class ids from 0 to 1, but got 255"),
        (["--scale", "logits", "--ignore-index", "3"], "`ignore_index` to be None without `num_classes`"),
        (["--scale", "logits", "--subfolder", "x"], "holds none in folders x"),
    ],
)
def test_errors_write_nothing(folder, capsys, more, error):
    assert main(arguments(folder, *more)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert error in printed
    assert sorted(path.name for path in folder.iterdir()) == ["maps.npz", "masks"]


def test_wrong_classes_to_leave_out(folder, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments(folder, "--classes", "2", "--without", "0,x"))
    assert left.value.code == 2
    assert "--without: expected class ids, separated by commas, got '0,x'" in capsys.readouterr().err


def test_a_repeated_clip_is_refused(folder, capsys):
    (folder / "list.txt").write_text("a\nb\na\n")
    assert main(arguments(folder, "--scale", "logits", "--clips", str(folder / "list.txt"))) == 2
    assert "list.txt: expected each clip once, but it repeats a\n" in capsys.readouterr().err


def test_clips_have_to_fit(folder, capsys):
    (folder / "list.txt").write_text("a\nz\n")
    assert main(arguments(folder, "--scale", "logits", "--clips", str(folder / "list.txt"))) == 2
    assert "list.txt: expected clips with masks, but" in capsys.readouterr().err
    (folder / "list.txt").write_text("\n")
    assert main(arguments(folder, "--scale", "logits", "--clips", str(folder / "list.txt"))) == 2
    assert "it is empty" in capsys.readouterr().err
    np.savez(folder / "maps.npz", a=MAPS["a"], b=MAPS["b"])
    assert main(arguments(folder, "--scale", "logits")) == 2
    assert "maps.npz has none of 1: c. To score a part" in capsys.readouterr().err
    np.savez(folder / "maps.npz", **MAPS, z=MAPS["a"])
    assert main(arguments(folder, "--scale", "logits")) == 2
    assert "maps.npz holds 1 of others: z" in capsys.readouterr().err
    np.savez(folder / "maps.npz", **(MAPS | {"a": MAPS["a"][:1]}))
    assert main(arguments(folder, "--scale", "logits")) == 2
    assert "a: expected 2 maps, one per mask, but got 1" in capsys.readouterr().err
    (folder / "scores").write_text("a file")
    assert main(arguments(folder, "--scale", "logits")) == 2
    assert "--out to be a folder" in capsys.readouterr().err


def test_the_module_is_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["masks", "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(module.__file__, run_name="__main__")
    assert done.value.code == 0
    assert "usage: python -m sslosses.evaluate.masks" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (OSError("no space"), 2)])
def test_an_end_in_between_writes_nothing(folder, monkeypatch, capsys, error, code):
    def fail(*_):
        raise error

    monkeypatch.setattr(module, "_add", fail)
    assert module.main(arguments(folder, "--scale", "logits")) == code
    assert sorted(path.name for path in folder.iterdir()) == ["maps.npz", "masks"]


def test_a_table_that_cannot_be_printed(folder, monkeypatch, capsys):
    def fail(_):
        raise OSError("no space")

    monkeypatch.setattr("sslosses.evaluate.exit_status.write_out", fail)
    assert module.main(arguments(folder, "--scale", "logits")) == 1
    assert "but cannot be printed: no space" in capsys.readouterr().err
    assert (folder / "scores" / "table.md").exists()
