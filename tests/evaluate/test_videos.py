"""The command's results by video, its comparison with other maps, and the file of videos."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sslosses.annotations import rasterize
from sslosses.evaluate import main
from sslosses.evaluate.benchmark import read_benchmark
from sslosses.metrics import SoundLocalization, compare

METADATA = os.environ.get("SSLOSSES_METADATA")
CLIPS = [f"video{i // 4}_000_0000{i % 4}" for i in range(12)]
BOXES = [[0.25 * (i % 3), 0.25 * (i % 2), 0.5, 0.5] for i in range(12)]
OTHERS = [[0.5 - 0.25 * (i % 2), 0.5, 0.25, 0.25] for i in range(12)]
VIDEOS = [f"video{i // 4}" for i in range(12)]


@pytest.fixture
def duet(tmp_path):
    path = tmp_path / "music_duet.json"
    entries = [
        {"file": clip, "class_src1": "cello", "bbox_src1": first, "class_src2": "flute", "bbox_src2": second}
        for clip, first, second in zip(CLIPS, BOXES, OTHERS, strict=True)
    ]
    path.write_text(json.dumps(entries))
    return path


def saved(path, seed, clips=CLIPS):
    generator = np.random.default_rng(seed)
    maps = {clip: generator.normal(size=(2, 4, 4)).astype(np.float32) for clip in clips}
    np.savez(path, **maps)
    return maps


def command(tmp_path, annotations, *more, protocol="noprior"):
    arguments = ["--maps", tmp_path / "maps.npz", "--annotations", annotations, "--format", "music-duet"]
    more = ("--protocol", protocol, "--out", tmp_path / "out", "--no-chance", "--no-sheet", *more)
    return main([str(argument) for argument in (*arguments, *more)])


def measured(tmp_path):
    return json.loads((tmp_path / "out" / "metrics.json").read_text())


def direct(maps, videos, protocol="noprior"):
    metric = SoundLocalization(protocol)
    boxes = [[(x, y, x + w, y + h) for x, y, w, h in pair] for pair in zip(BOXES, OTHERS, strict=True)]
    truths = torch.stack([torch.stack([rasterize([box]) for box in pair]) for pair in boxes])
    classes = [[0, 1]] * len(videos)
    metric.update(
        torch.stack(list(map(torch.from_numpy, maps.values()))), truths, videos=videos, source_classes=classes
    )
    return metric


@pytest.mark.filterwarnings("ignore:.*interval over videos:UserWarning")
def test_videos_are_known_from_the_ids(tmp_path, duet, capsys):
    maps = saved(tmp_path / "maps.npz", 0)
    assert command(tmp_path, duet, "--resamples", 50, "--seed", 3) == 0
    printed = capsys.readouterr().out
    assert "24 entries of 3 videos (effectively 3.0), 12 samples" in printed
    assert "Note: The entries are of 3 videos, effectively 3.0, so an interval over videos means little." in printed
    expected = direct(maps, VIDEOS).result(resamples=50, seed=3, class_names=("cello", "flute")).to_dict()
    found = measured(tmp_path)["protocols"]["noprior"]
    for name in ("metrics", "counts", "videos", "per_video", "per_class", "notes"):
        assert found[name] == expected[name]
    assert list(found["per_video"]) == ["video0", "video1", "video2"]
    (row,) = [line for line in printed.splitlines() if line.startswith("| CAP ")]
    low, high = expected["videos"]["intervals"]["CAP"]
    mean = expected["videos"]["means"]["CAP"]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[2:5] == [
        f"{100 * expected['metrics']['CAP']:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * mean:.1f}",
    ]
    assert r"95 \% interval" in (tmp_path / "out" / "table.tex").read_text()
    assert command(tmp_path, duet, "--resamples", 0) == 0
    assert "interval |" not in capsys.readouterr().out
    assert measured(tmp_path)["protocols"]["noprior"]["videos"]["intervals"] == {}


@pytest.mark.filterwarnings("ignore:.*interval over videos:UserWarning")
def test_a_file_of_videos_overrides_the_ids(tmp_path, duet, capsys):
    maps = saved(tmp_path / "maps.npz", 0)
    videos = tmp_path / "videos.csv"
    own = [f"take {i % 2}, live" for i in range(12)]
    lines = ["clip,video", *(f"{clip}, {video}" for clip, video in zip(CLIPS, own, strict=True)), "other,x", ""]
    videos.write_text("\n".join(lines))
    assert command(tmp_path, duet, "--videos", videos) == 0
    assert "24 entries of 2 videos (effectively 2.0)" in capsys.readouterr().out
    found = measured(tmp_path)
    assert found["videos"] == str(videos)
    assert found["protocols"]["noprior"]["per_video"] == direct(maps, own).result().to_dict()["per_video"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{CLIPS[0]},a\n", "expected the video of each scored clip, but it lacks 11: video0_000_00001, "),
        ("clip,video\n", "but it lacks 12: "),
        (f"{CLIPS[0]}\n", "line 1: expected 'clip,video', but got 'video0_000_00000'"),
        (f"{CLIPS[0]},\n", "line 1: expected 'clip,video', but got 'video0_000_00000,'"),
        (f"{CLIPS[0]},a\n\n{CLIPS[0]},b\n", "line 3: expected one video per clip, but video0_000_00000 has two"),
        ("\udcff", "videos.csv: expected text in UTF-8"),
    ],
)
def test_wrong_files_of_videos(tmp_path, duet, capsys, content, message):
    saved(tmp_path / "maps.npz", 0)
    (tmp_path / "videos.csv").write_bytes(content.encode(errors="surrogateescape"))
    assert command(tmp_path, duet, "--videos", tmp_path / "videos.csv") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:.*interval over videos:UserWarning")
def test_differences_to_other_maps(tmp_path, duet, capsys):
    first, second = (saved(tmp_path / name, seed) for seed, name in enumerate(("maps.npz", "others.npz")))
    more = ("--against", tmp_path / "others.npz", "--resamples", 60, "--seed", 2)
    assert command(tmp_path, duet, *more, protocol="noprior,lvs") == 0
    printed = capsys.readouterr().out
    found = measured(tmp_path)
    assert found["against"] == str(tmp_path / "others.npz")
    for protocol in ("noprior", "lvs"):
        metrics = [direct(maps, VIDEOS, protocol) for maps in (first, second)]
        expected = compare(*metrics, resamples=60, seed=2)
        assert found["comparisons"][protocol] == json.loads(json.dumps(expected.to_dict()))
        name, *cells = expected.rows()[0]
        (row,) = [line for line in printed.splitlines() if [c.strip() for c in line.split("|")][1:-1] == [name, *cells]]
        assert f"Differences over {expected.shown_counts()}" in printed
        heading = printed.splitlines()[printed.splitlines().index(row) - 2]
        assert [c.strip() for c in heading.split("|")][1:-1] == [
            *(f"{protocol}, %", "maps", "against", "difference", "95 % interval"),
        ]
    assert found["protocols"]["noprior"]["metrics"] == found["comparisons"]["noprior"]["a"]


def test_other_maps_are_checked_too(tmp_path, duet, capsys):
    saved(tmp_path / "maps.npz", 0)
    saved(tmp_path / "others.npz", 1, CLIPS[:10])
    others = ("--against", tmp_path / "others.npz")
    assert command(tmp_path, duet, *others) == 2
    assert "others.npz has none of 2: video2_000_00002, video2_000_00003" in capsys.readouterr().err
    assert command(tmp_path, duet, *others, "--allow-missing", "--resamples", 5) == 0
    assert measured(tmp_path)["comparisons"]["noprior"]["samples"] == 12
    maps = saved(tmp_path / "others.npz", 1)
    np.savez(tmp_path / "others.npz", **{**maps, CLIPS[3]: np.full((2, 2), np.nan)})
    assert command(tmp_path, duet, *others) == 2
    error = capsys.readouterr().err
    assert "others.npz that can be scored, but got 1 that cannot" in error
    assert f"{CLIPS[3]}: expected finite maps" in error
    assert command(tmp_path, duet, "--against", tmp_path / "none.npz") == 2
    assert "there is no" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-1", "x", "100001"])
def test_wrong_numbers_of_resamples(tmp_path, duet, capsys, value):
    with pytest.raises(SystemExit) as left:
        command(tmp_path, duet, "--resamples", value)
    assert left.value.code == 2
    assert f"--resamples: expected an integer from 0 to 100,000, got '{value}'" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*interval over videos:UserWarning")
def test_oracles_are_marked_in_every_table(tmp_path, duet, capsys):
    saved(tmp_path / "maps.npz", 0)
    saved(tmp_path / "others.npz", 1)
    (tmp_path / "train.txt").write_text(f"{CLIPS[0]}\n")
    more = ("--against", tmp_path / "others.npz", "--train-list", tmp_path / "train.txt", "--breakdown")
    assert command(tmp_path, duet, *more, "--resamples", 5, protocol="acl,sslalign-adaptive") == 0
    first_cells = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if "|" in line]
    for name in ("acl", "sslalign-adaptive"):
        named = [cell for cell in first_cells if cell.startswith(name)]
        assert named.count(f"{name} (oracle), %") == 2  # the metrics and the differences
        assert f"{name} (oracle), AUC" in named  # without clips that were trained on
        assert all(cell.startswith(f"{name} (oracle)") for cell in named)
    assert measured(tmp_path)["comparisons"]["acl"]["oracle"] is True


@pytest.mark.skipif(not METADATA, reason="SSLOSSES_METADATA names no folder of public lists")
@pytest.mark.parametrize(
    ("form", "file", "clips", "videos"),
    [
        ("music-duet", "music_duet.json", 1020, 6),
        ("music-solo", "music_solo.json", 2124, 20),
        ("vggss", "vggss.json", 5158, 5017),
    ],
)
def test_videos_of_the_public_lists(form, file, clips, videos):
    options = {"boxes": None, "layout": "stacked", "on_invalid": "report", "clips": None}
    benchmark = read_benchmark(Path(METADATA, file), form, **options)
    assert len(benchmark.records) == clips
    assert len({benchmark.video(record) for record in benchmark.records}) == videos


def test_sounds_of_one_picture_are_a_group(tmp_path):
    names = [f"scene_{picture}_{sound}" for picture in range(4) for sound in ("dog", "cat")]
    entries = [{"image": f"/x/{n}.jpg", "audio": f"/y/{n}.wav", "gt_box": [0, 0, 112, 224]} for n in names]
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    left = np.array([[1.0, 0.0], [1.0, 0.0]])
    maps = {name: left if name not in ("scene_0_dog", "scene_2_cat") else left[:, ::-1] for name in names}
    np.savez(tmp_path / "maps.npz", **maps)
    arguments = ["--maps", tmp_path / "maps.npz", "--annotations", tmp_path / "boxes.json", "--format", "sslalign"]
    arguments += ["--protocol", "sslalign,sslalign-adaptive", "--out", tmp_path / "out", "--no-sheet"]
    assert main([str(argument) for argument in arguments]) == 0
    part = measured(tmp_path)["protocols"]["sslalign"]
    assert (part["metrics"]["CIoU@0.5"], part["metrics"]["IIoU@0.5"]) == (0.75, 0.5)
    assert part["videos"]["count"] == 4
    assert part["chance"]["random maps"]["IIoU@0.5"] <= part["chance"]["random maps"]["CIoU@0.5"]


def test_a_group_of_several_videos_is_refused_before_scoring(tmp_path, capsys):
    clips = [f"cat_dog_{i}_{part}" for i in range(2) for part in ("cat", "dog")]
    entries = [{"image": f"/x/{clip}.jpg", "audio": f"/x/{clip}.wav", "gt_box": [0, 0, 99, 99]} for clip in clips]
    (tmp_path / "IS3.json").write_text(json.dumps(entries))
    np.savez(tmp_path / "maps.npz", **{clip: np.eye(4) for clip in clips})
    (tmp_path / "videos.csv").write_text("".join(f"{clip},v{min(i, 2)}\n" for i, clip in enumerate(clips)))
    paths = ("--maps", tmp_path / "maps.npz", "--annotations", tmp_path / "IS3.json", "--out", tmp_path / "out")
    more = ("--format", "sslalign", "--protocol", "sslalign", "--videos", tmp_path / "videos.csv", "--no-sheet")
    assert main([str(argument) for argument in (*paths, *more)]) == 2
    assert "videos.csv: expected one video per group, but cat_dog_0 has several\n" in capsys.readouterr().err
