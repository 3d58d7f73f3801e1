import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import sslosses
from sslosses.annotations import (
    rasterize,
    rasterize_annotators,
    read_flickr,
    read_music_duet,
    read_vggsound_mixtures,
    read_vggss,
)
from sslosses.evaluate import main, sheet
from sslosses.metrics import SoundLocalization, chance_levels

BOXES = [[0.1, 0.2, 0.6, 0.9], [0.5, 0.5, 1.0, 0.8], [0.0, 0.0, 0.3, 0.4], [0.2, 0.1, 0.9, 1.0], [0.6, 0.1, 0.8, 0.3]]
CLIPS = [f"clip{i}_00003{i}" for i in range(len(BOXES))]


@pytest.fixture
def vggss(tmp_path):
    path = tmp_path / "vggss.json"
    entries = [{"file": c, "class": "a bird, singing", "bbox": [b]} for c, b in zip(CLIPS, BOXES, strict=True)]
    entries[1]["bbox"].append([0.4, 0.4, 0.7, 0.7])
    path.write_text(json.dumps(entries))
    return path


def drawn(clips, *shape):
    generator = np.random.default_rng(0)
    return {clip: generator.normal(size=shape).astype(np.float32) for clip in clips}


def saved(tmp_path, maps):
    path = tmp_path / "maps.npz"
    np.savez(path, **maps)
    return path


def command(tmp_path, maps, annotations, form="vggss", *more, protocol="paper"):
    arguments = ["--maps", maps, "--annotations", annotations, "--format", form, "--out", tmp_path / "out"]
    return main([str(a) for a in (*arguments, "--protocol", protocol, *more)])


def refused(capsys, tmp_path, *message):
    """What stderr has to say; nothing on stdout, nothing written beside what the test wrote."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    for part in message:
        assert part in captured.err
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    return captured.err


def measured(tmp_path):
    return json.loads((tmp_path / "out" / "metrics.json").read_text())


def direct(protocol, task, layout, maps, truths):
    metric = SoundLocalization(protocol, task=task, layout=layout)
    metric.update(maps, truths)
    return {name: value.item() for name, value in metric.compute().items()}


def test_numbers_are_those_of_the_metric(tmp_path, vggss, capsys):
    maps = drawn(CLIPS, 6, 8)
    assert command(tmp_path, saved(tmp_path, maps), vggss, "vggss", "--seed", 3, protocol="paper, noprior") == 0
    result = measured(tmp_path)
    truths = torch.stack([rasterize(record.boxes[0])[None] for record in read_vggss(vggss)])
    tensor = torch.stack([torch.from_numpy(maps[clip])[None] for clip in CLIPS])
    assert list(result["protocols"]) == ["paper", "noprior"]
    for name, found in result["protocols"].items():
        assert {**found["metrics"], **found["counts"]} == direct(name, "single", "one", tensor, truths)
        assert found["definition"].startswith(f"{name}: 224×224")
        levels = chance_levels(truths, name, task="single", resolution=(6, 8), seed=3)
        assert list(found["chance"]) == list(levels)
        for prediction, metrics in found["chance"].items():
            assert metrics == {metric: levels[prediction][metric].item() for metric in metrics}
    assert (result["clips"], result["task"], result["resolution"]) == (5, "single", [6, 8])
    table = (tmp_path / "out" / "table.md").read_text()
    assert capsys.readouterr().out == table
    assert f"| AP       | {100 * result['protocols']['paper']['metrics']['AP']:.1f} |" in table
    assert "centered Gaussian | whole frame | random maps |" in table
    assert "5 entries of 5 videos (effectively 5.0), 5 samples, 0 samples without map" in table
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("metrics.json", "sheet.png", "table.md", "table.tex"),
    ]
    latex = (tmp_path / "out" / "table.tex").read_text()
    assert latex.count("\\begin{tabular}") == 2
    assert f"result & {100 * result['protocols']['paper']['metrics']['AP']:.1f} & " in latex
    assert "% noprior: 224×224, bicubic" in latex
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_breakdown_by_size_and_class(tmp_path, vggss, capsys):
    entries = json.loads(vggss.read_text())
    entries[2]["class"] = "a|b"
    vggss.write_text(json.dumps(entries))
    maps = drawn(CLIPS, 7, 7)
    arguments = (tmp_path, saved(tmp_path, maps), vggss, "vggss", "--no-chance", "--no-sheet")
    assert command(*arguments, protocol="paper,noprior") == 0
    plain = capsys.readouterr().out
    found = measured(tmp_path)["protocols"]
    # they have 17,584, 10,057, 5,963, 31,714 and 2,025 pixels
    sizes, classes = found["paper"]["per_size"], found["noprior"]["per_class"]
    assert {name: part["entries"] for name, part in sizes.items()} == {"medium": 2, "large": 2, "huge": 1}
    assert {name: part["entries"] for name, part in classes.items()} == {"a bird, singing": 4, "a|b": 1}
    truth = rasterize([BOXES[2]])[None, None]
    alone = direct("noprior", "single", "one", torch.from_numpy(maps[CLIPS[2]])[None, None], truth)
    part = classes["a|b"]
    assert part == {name: alone[name] for name in part}
    assert "PIAP" not in part
    assert command(*arguments, "--breakdown", protocol="paper,noprior") == 0
    broken_down = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text() == broken_down
    assert "by size" not in plain
    for protocol in found:
        assert f"| {protocol}, %, by size " in broken_down
        assert f"| {protocol}, %, by class " in broken_down
    (row,) = [line for line in broken_down.splitlines() if line.startswith("| a\\|b ") and line.count("|") == 8]
    assert row.split("|")[3].strip() == f"{100 * part['CAP']:.1f}"
    assert row.split("|")[-2].strip() == "1"


def test_folder_of_arrays_and_subset(tmp_path, vggss):
    folder = tmp_path / "maps"
    folder.mkdir()
    maps = drawn(CLIPS, 1, 5, 5)
    for number, (clip, array) in enumerate(maps.items()):
        if number % 2:
            np.savez(folder / f"{clip}.npz", array)
        else:
            np.save(folder / f"{clip}.npy", array.astype([np.float16, np.float64, np.float32][number // 2]))
    (folder / "notes.txt").write_text("not looked at")
    (tmp_path / "list.csv").write_text(f"{CLIPS[3]},bird\n{CLIPS[1]},bird\n")
    more = ("--no-sheet", "--no-chance")
    assert command(tmp_path, folder, vggss, "vggss", *more) == 0
    assert measured(tmp_path)["protocols"]["paper"]["counts"]["entries"] == 5
    assert command(tmp_path, folder, vggss, "vggss", *more, "--clips", tmp_path / "list.csv") == 0
    result = measured(tmp_path)
    truths = [rasterize(read_vggss(vggss)[clip].boxes[0])[None] for clip in (CLIPS[1], CLIPS[3])]
    expected = direct("paper", "single", "one", [torch.from_numpy(maps[c]) for c in (CLIPS[1], CLIPS[3])], truths)
    found = result["protocols"]["paper"]
    assert {**found["metrics"], **found["counts"]} == expected
    assert found["chance"] == {}


def test_missing_maps_can_be_allowed(tmp_path, vggss, capsys):
    maps = drawn(CLIPS[:3], 4, 4)
    path = saved(tmp_path, maps)
    assert command(tmp_path, path, vggss) == 2
    refused(capsys, tmp_path, "maps of all 5 clips", f"none of 2: {CLIPS[3]}, {CLIPS[4]}", "--allow-missing")
    assert command(tmp_path, path, vggss, "vggss", "--allow-missing", "--no-chance") == 0
    result = measured(tmp_path)
    assert result["clips_without_map"] == CLIPS[3:]
    assert result["protocols"]["paper"]["counts"] == {
        "entries": 3,
        "samples": 5,
        "samples_without_map": 2,
        "empty_truths": 0,
        "samples_without_source": 0,
    }
    capsys.readouterr()
    assert command(tmp_path, saved(tmp_path, {}), vggss, "vggss", "--allow-missing", "--no-chance") == 2
    assert "a map of at least one clip, but" in capsys.readouterr().err


def test_music_duet_with_any_number_of_maps(tmp_path):
    entries = [
        {
            "file": clip,
            "class_src1": "cello",
            "bbox_src1": [x, 0, 0.4, 0.5],
            "class_src2": "flute",
            "bbox_src2": [0.5, y, 0.4, 0.5],
        }
        for clip, x, y in (("one", 0.0, 0.5), ("two", 0.1, 0.1), ("three", 0.3, 0.0))
    ]
    path = tmp_path / "music_duet.json"
    path.write_text(json.dumps(entries))
    maps = {clip: drawn([clip], count, 7, 7)[clip] for clip, count in (("one", 1), ("two", 2), ("three", 3))}
    assert command(tmp_path, saved(tmp_path, maps), path, "music-duet", protocol="noprior") == 0
    truths = [torch.stack([rasterize(b) for b in record.boxes]) for record in read_music_duet(path)]
    found = measured(tmp_path)["protocols"]["noprior"]
    expected = direct("noprior", "mixtures", "one", [torch.from_numpy(m) for m in maps.values()], truths)
    assert {**found["metrics"], **found["counts"]} == expected
    assert found["counts"]["entries"] == 7


def test_flickr(tmp_path):
    folder = tmp_path / "Annotations"
    folder.mkdir()
    for clip, xmin in (("10", 0), ("20", 100), ("30", 50)):
        boxes = [f"<bbox><xmin>{x}</xmin><ymin>9</ymin><xmax>200</xmax><ymax>250</ymax></bbox>" for x in (xmin, 90)]
        (folder / f"{clip}.xml").write_text(f"<annotation>{''.join(boxes)}</annotation>")
    maps = drawn(["10", "20", "30"], 7, 7)
    assert command(tmp_path, saved(tmp_path, maps), folder, "flickr", "--no-chance") == 0
    truths = [rasterize_annotators(record.boxes[0])[None] for record in read_flickr(folder)]
    found = measured(tmp_path)["protocols"]["paper"]
    expected = direct("paper", "single", "one", [torch.from_numpy(m)[None] for m in maps.values()], truths)
    assert {**found["metrics"], **found["counts"]} == expected


@pytest.mark.parametrize(("layout", "shape"), [("stacked", (2, 10, 5)), ("side-by-side", (2, 5, 10))])
def test_vggsound_duet(tmp_path, vggss, capsys, layout, shape):
    path = tmp_path / "duet.csv"
    path.write_text("".join(f"{a},a_bird_singing,{b},a_bird_singing\n" for a, b in pairwise(CLIPS[:4])))
    mixtures = read_vggsound_mixtures(path, vggss)
    maps = drawn([record.clip for record in mixtures], *shape)
    more = ("--layout", layout, "--seed", 1)
    assert command(tmp_path, saved(tmp_path, maps), path, "vggsound-duet", *more, protocol="noprior") == 0
    truths = torch.stack([torch.stack([rasterize(b) for b in record.boxes]) for record in mixtures])
    found = measured(tmp_path)["protocols"]["noprior"]
    tensor = torch.stack([torch.from_numpy(m) for m in maps.values()])
    assert {**found["metrics"], **found["counts"]} == direct("noprior", "mixtures", layout, tensor, truths)
    levels = chance_levels(truths, "noprior", layout=layout, resolution=(5, 5), seed=1)
    assert found["chance"]["random maps"]["CAP"] == levels["random maps"]["CAP"].item()
    # two maps of one frame each, where each map has to hold both frames
    wrong = saved(tmp_path, drawn([record.clip for record in mixtures], 2, 6, 6))
    capsys.readouterr()
    assert command(tmp_path, wrong, path, "vggsound-duet", *more) == 2
    shown = capsys.readouterr().err
    assert f"{mixtures.records[0].clip}: expected maps of 2 {layout} frames" in shown
    assert "but got (2, 6, 6)" in shown
    alone = tmp_path / "lists" / "duet.csv"  # without vggss.json beside it
    alone.parent.mkdir()
    path.rename(alone)
    assert command(tmp_path, wrong, alone, "vggsound-duet") == 2
    assert f"Expected --boxes, the boxes of the single clips, as there is no {alone.parent}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.array([[0.0, np.nan]]), "expected finite maps, but got NaN or infinite values"),
        (np.array([[0.0, -np.inf]]), "expected finite maps, but got NaN or infinite values"),
        (np.zeros(7), "shape (h, w) or (M, h, w), but got (7,)"),
        (np.zeros((1, 1, 2, 2)), "shape (h, w) or (M, h, w), but got (1, 1, 2, 2)"),
        (np.zeros((0, 4)), "but got (0, 4)"),
        (np.zeros((2, 2), complex), "real numbers, but got dtype complex128"),
        (np.array([["a"]]), "real numbers, but got dtype <U1"),
        (np.array([[{}]], dtype=object), "cannot be read (Object arrays cannot be loaded"),
    ],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_maps_that_cannot_be_scored(tmp_path, vggss, capsys, bad, message, as_folder):
    maps = {**drawn(CLIPS, 4, 4), CLIPS[1]: bad, CLIPS[3]: bad}
    if as_folder:
        path = tmp_path / "maps"
        path.mkdir()
        for clip, array in maps.items():
            np.save(path / f"{clip}.npy", array)
    else:
        path = saved(tmp_path, maps)
    assert command(tmp_path, path, vggss) == 2
    shown = refused(capsys, tmp_path, "got 2 that cannot", f"{CLIPS[1]}: ", f"{CLIPS[3]}: ", message)
    assert CLIPS[0] not in shown


def test_files_that_are_no_maps(tmp_path, vggss, capsys):
    path = tmp_path / "maps.npz"
    assert command(tmp_path, path, vggss) == 2
    refused(capsys, tmp_path, "there is no", "maps.npz")
    path.write_text("text")
    assert command(tmp_path, path, vggss) == 2
    refused(capsys, tmp_path, "maps.npz: expected a folder or an NPZ file of maps")
    np.save(tmp_path / "maps.npy", np.zeros((2, 2)))
    assert command(tmp_path, tmp_path / "maps.npy", vggss) == 2
    refused(capsys, tmp_path, "maps.npy: expected a folder or an NPZ file of maps")
    saved(tmp_path, drawn(CLIPS, 4, 4))
    path.write_bytes(path.read_bytes()[:-40])
    assert command(tmp_path, path, vggss) == 2
    refused(capsys, tmp_path, "maps.npz")

    folder = tmp_path / "maps"
    folder.mkdir()
    for clip, array in drawn(CLIPS, 4, 4).items():
        np.save(folder / f"{clip}.npy", array)
    (folder / f"{CLIPS[0]}.npy").write_bytes(b"\x93NUMPY\x01\x00")
    whole = (folder / f"{CLIPS[1]}.npy").read_bytes()
    (folder / f"{CLIPS[1]}.npy").write_bytes(whole[:-8])
    (folder / f"{CLIPS[2]}.npy").unlink()
    np.savez(folder / f"{CLIPS[2]}.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    (folder / f"{CLIPS[3]}.npy").unlink()
    (folder / f"{CLIPS[3]}.npz").write_bytes(b"PK\x05\x06")
    assert command(tmp_path, folder, vggss) == 2
    shown = refused(capsys, tmp_path, "got 4 that cannot", "holds 2 arrays, not one")
    assert all(f"{clip}: " in shown for clip in CLIPS[:4])
    np.save(folder / f"{CLIPS[2]}.npy", np.zeros((2, 2)))
    assert command(tmp_path, folder, vggss) == 2
    refused(capsys, tmp_path, f"{CLIPS[2]} has {CLIPS[2]}.npy and {CLIPS[2]}.npz")


def test_extra_maps(tmp_path, vggss, capsys):
    names = ["../clip0", *(f"extra{i}" for i in range(6))]
    assert command(tmp_path, saved(tmp_path, drawn([*CLIPS, *names], 4, 4)), vggss) == 2
    refused(capsys, tmp_path, "holds 7 of others: ../clip0, extra0, extra1, extra2, extra3 and 2 more")


def test_dropped_clips_are_no_extra_maps(tmp_path, vggss, capsys):
    entries = json.loads(vggss.read_text())
    entries[2]["bbox"] = [[0.5, 0.5, 0.5, 1.0]]
    vggss.write_text(json.dumps(entries))
    path = saved(tmp_path, drawn(CLIPS, 4, 4))
    more = ("vggss", "--no-sheet", "--no-chance", "--on-invalid")
    assert command(tmp_path, path, vggss, *more, "report") == 0
    assert "1 empty truths" in (tmp_path / "out" / "table.md").read_text()
    assert "1 without area in the frame, 1 clips with a source without usable box" in capsys.readouterr().out
    assert measured(tmp_path)["annotation_report"]["invalid"][0].startswith(f"entry 2 ({CLIPS[2]}), bbox[0]")
    assert command(tmp_path, path, vggss, *more, "drop") == 0
    assert measured(tmp_path)["clips"] == 4
    assert measured(tmp_path)["annotation_report"]["dropped"] == [CLIPS[2]]
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert command(tmp_path, path, vggss, *more, "error") == 2
    assert f"entry 2 ({CLIPS[2]}), bbox[0]" in capsys.readouterr().err
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}


def test_wrong_arguments(tmp_path, vggss, capsys):
    path = saved(tmp_path, drawn(CLIPS, 4, 4))
    assert command(tmp_path, path, vggss, protocol="paper,novel") == 2
    refused(capsys, tmp_path, "'noprior', 'tvsl', 'paper', 'clean'", "but got 'novel'")
    assert command(tmp_path, path, vggss, protocol="paper,paper") == 2
    refused(capsys, tmp_path, "each protocol once")
    assert command(tmp_path, path, tmp_path / "none.json") == 2
    refused(capsys, tmp_path, "none.json")
    assert command(tmp_path, path, path) == 2
    refused(capsys, tmp_path, "maps.npz: expected JSON in UTF-8")
    assert command(tmp_path, path, vggss, "vggss", "--frames-dir", tmp_path / "none") == 2
    refused(capsys, tmp_path, "--frames-dir to be a folder")
    (tmp_path / "list.txt").write_text("elsewhere\n")
    assert command(tmp_path, path, vggss, "vggss", "--clips", tmp_path / "list.txt") == 2
    refused(capsys, tmp_path, "list.txt: expected clips of", "elsewhere")
    (tmp_path / "list.txt").write_text("\n")
    assert command(tmp_path, path, vggss, "vggss", "--clips", tmp_path / "list.txt") == 2
    refused(capsys, tmp_path, "at least one clip")
    for more in (["--format", "unknown"], ["--pictures", "0"]):
        with pytest.raises(SystemExit) as left:
            command(tmp_path, path, vggss, "vggss", *more)
        assert left.value.code == 2
        error = capsys.readouterr().err
        assert "--format: invalid choice" in error or "--pictures: expected an integer from 1 on, got '0'" in error
    (tmp_path / "out").write_text("a file")
    assert command(tmp_path, path, vggss) == 2
    assert "--out to be a folder" in capsys.readouterr().err


def test_nothing_is_left_of_a_run_that_fails_at_its_end(tmp_path, vggss, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("drawing failed")

    monkeypatch.setattr(sheet, "draw", fail)
    with pytest.raises(RuntimeError, match="drawing failed"):
        command(tmp_path, saved(tmp_path, drawn(CLIPS, 4, 4)), vggss, "vggss", "--no-chance")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps.npz", "vggss.json"]


def test_without_optional_packages(tmp_path, vggss, monkeypatch, capsys):
    path = saved(tmp_path, drawn(CLIPS, 4, 4))
    for module in ("_optional", "evaluate.progress"):
        monkeypatch.setattr(f"sslosses.{module}.is_installed", lambda _: False)
    assert command(tmp_path, path, vggss) == 2
    refused(capsys, tmp_path, "--no-sheet", "pip install 'sslosses[examples]'")
    assert command(tmp_path, path, vggss, "vggss", "--no-sheet", "--no-chance") == 0


def test_sheet_shows_best_median_and_worst(tmp_path, vggss, monkeypatch):
    """A map that is its truth is the best one, one that avoids it the worst; frames lie behind the maps."""
    from PIL import Image

    annotations = read_vggss(vggss)
    truths = {clip: rasterize(annotations[clip].boxes[0]).numpy().astype(np.float32) for clip in CLIPS}
    maps = {**drawn(CLIPS, 14, 14), CLIPS[2]: truths[CLIPS[2]], CLIPS[4]: -truths[CLIPS[4]]}
    frames = tmp_path / "frames"
    frames.mkdir()
    for clip in CLIPS[:2]:
        Image.new("RGB", (64, 48), "red").save(frames / f"{clip}.jpg")
    (frames / f"{CLIPS[2]}.jpg").write_bytes(b"no picture")
    seen = []
    original = sheet.draw

    def draw(path, ranking, *args, **options):
        seen.append(ranking)
        original(path, ranking, *args, **options)

    monkeypatch.setattr(sheet, "draw", draw)
    more = ("--no-chance", "--frames-dir", frames, "--pictures", 1)
    assert command(tmp_path, saved(tmp_path, maps), vggss, "vggss", *more) == 0
    (ranking,) = seen
    assert ranking[0] == (CLIPS[2], 1.0)
    assert ranking[-1][0] == CLIPS[4]
    assert sorted(clip for clip, _ in ranking) == CLIPS
    for clip, auc in ranking:
        own, truth = (torch.from_numpy(arrays[clip])[None, None] for arrays in (maps, truths))
        one = direct("paper", "single", "one", own, truth)
        assert math.isclose(auc, one["AUC"])
    with Image.open(tmp_path / "out" / "sheet.png") as picture:
        assert picture.size[0] > 200
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 1000


def test_as_a_process(tmp_path, vggss):
    arguments = ["--annotations", vggss, "--format", "vggss", "--protocol", "paper", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "sslosses.evaluate", "--maps", tmp_path / "none.npz", *arguments, "--no-sheet"],
        capture_output=True,
        text=True,
        cwd=Path(sslosses.__file__).parents[1],
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "error: Expected a folder" in done.stderr
    assert "Traceback" not in done.stderr
