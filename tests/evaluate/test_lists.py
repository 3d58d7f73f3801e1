"""Named clip lists, training lists, and the formats that came with them, in the evaluate command."""

import json

import numpy as np
import pytest
import torch

from sslosses.annotations import NegativeRecord, Record, lists, rasterize, read_vggss
from sslosses.evaluate import main
from sslosses.evaluate.benchmark import read_benchmark
from sslosses.evaluate.leaks import find_leak
from sslosses.evaluate.scoring import Surplus
from sslosses.metrics import SoundLocalization, chance_levels, protocols

LISTED = lists.get("flickr-178").ids
CLIPS = ["00000000abc_000030", "00000000abc_000040", "-0000000_bc_000007", "x0000000abc_000001", "y0000000abc_000002"]
BOXES = [[0.1, 0.2, 0.6, 0.9], [0.5, 0.5, 1.0, 0.8], [0.0, 0.0, 0.3, 0.4], [0.2, 0.1, 0.9, 1.0], [0.6, 0.1, 0.8, 0.3]]


def annotated(tmp_path, clips=CLIPS):
    boxes = [BOXES[i % 5] for i in range(len(clips))]
    path = tmp_path / "vggss.json"
    path.write_text(json.dumps([{"file": c, "class": "bird", "bbox": [b]} for c, b in zip(clips, boxes, strict=True)]))
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "maps.npz", **{clip: generator.random((5, 5), np.float32) for clip in clips})
    return path


def score(tmp_path, *more, form="vggss", annotations="vggss.json", protocol="paper,noprior"):
    paths = ["--maps", tmp_path / "maps.npz", "--annotations", tmp_path / annotations, "--out", tmp_path / "out"]
    return main([*map(str, (*paths, "--format", form, "--protocol", protocol, "--no-sheet", *more))])


def measured(tmp_path):
    return json.loads((tmp_path / "out" / "metrics.json").read_text())


def direct(tmp_path, clips, protocol):
    annotations = read_vggss(tmp_path / "vggss.json")
    metric = SoundLocalization(protocol, task="single")
    truths = [rasterize(annotations[clip].boxes[0])[None] for clip in clips]
    with np.load(tmp_path / "maps.npz") as maps:
        metric.update([torch.from_numpy(maps[clip])[None] for clip in clips], truths)
    return {name: value.item() for name, value in metric.compute().items()}


def test_a_named_list_selects_its_clips(tmp_path, capsys):
    annotated(tmp_path, [*LISTED, "another"])
    assert score(tmp_path, "--list", "flickr-178", "--no-chance", protocol="lvs") == 0
    printed = capsys.readouterr().out
    assert "Scored 178 of 179 annotated clips (99.4 %), 178 of the 178 listed ones" in printed
    digest = lists.get("flickr-178").digest
    assert f"Clips: the list flickr-178 (178 clips, SHA-256 of the ids {digest[:12]}…)" in printed
    assert (tmp_path / "out" / "table.md").read_text() == printed
    latex = (tmp_path / "out" / "table.tex").read_text().splitlines()
    assert f"% Clips: the list flickr-178 (178 clips, SHA-256 of the ids {digest[:12]}…)" in latex
    assert all(line.startswith("% ") for line in latex[: latex.index("\\begin{tabular}{lrrr}")])
    found = measured(tmp_path)
    assert (found["clip_list"]["name"], found["clip_list"]["clips"]) == ("flickr-178", 178)
    assert found["clip_list"]["sha256"] == digest
    assert found["clip_list"]["sources"][0]["license"] == "MIT"
    part = found["protocols"]["lvs"]
    assert {**part["metrics"], **part["counts"]} == direct(tmp_path, LISTED, "lvs")


def test_lists_are_recognized_without_their_name(tmp_path, capsys):
    annotated(tmp_path, LISTED)
    assert score(tmp_path, "--no-chance", protocol="lvs") == 0
    assert "Clips: the list flickr-178 (178 clips" in capsys.readouterr().out
    assert "wanted" not in measured(tmp_path)["clip_list"]


def test_a_part_of_a_named_list_says_so(tmp_path, capsys):
    path = annotated(tmp_path, LISTED)
    entries = json.loads(path.read_text())
    entries[7]["bbox"] = []
    path.write_text(json.dumps(entries))
    assert score(tmp_path, "--list", "flickr-178", "--on-invalid", "drop", "--no-chance", protocol="lvs") == 0
    assert "Clips: 177 of the 178 of the list flickr-178 (177 clips" in capsys.readouterr().out
    found = measured(tmp_path)["clip_list"]
    assert found["name"] == "a list of your own"
    assert found["sha256"] == lists.digest([clip for clip in LISTED if clip != LISTED[7]])
    assert found["wanted"] == {"name": "flickr-178", "clips": 178, "sha256": lists.get("flickr-178").digest}


def test_chance_levels_are_those_of_the_listed_clips(tmp_path, capsys):
    annotated(tmp_path)
    (tmp_path / "list.csv").write_text(f"{CLIPS[3]}.jpg,bird\nframes/{CLIPS[1]}.mp4,bird\n")
    assert score(tmp_path, "--clips", tmp_path / "list.csv", "--seed", 3, protocol="paper") == 0
    assert "Clips: a list of your own (2 clips" in capsys.readouterr().out
    found = measured(tmp_path)
    assert found["clip_list"] == {
        "name": "a list of your own",
        "clips": 2,
        "sha256": lists.digest([CLIPS[1], CLIPS[3]]),
    }
    annotations = read_vggss(tmp_path / "vggss.json")
    truths = torch.stack([rasterize(annotations[clip].boxes[0])[None] for clip in (CLIPS[3], CLIPS[1])])
    levels = chance_levels(truths, "paper", task="single", resolution=(5, 5), seed=3)
    for prediction, metrics in found["protocols"]["paper"]["chance"].items():
        assert metrics == {name: levels[prediction][name].item() for name in metrics}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--list", "vggss"], "--list: Expected `name` to be one of"),
        (["--list", "vggss-4655"], "--list: Expected a list whose ids are in the package, but vggss-4655 is not"),
        (["--list", "vggsound-10k-slavc"], "to be a list of test clips, but vggsound-10k-slavc lists training clips"),
        (["--list", "flickr-249"], "flickr-249: expected clips of"),
        (["--train-list", "none.txt"], "none.txt"),
        (["--clips", "twice.txt"], "twice.txt: line 2: expected each clip once, but '00000000abc_000030' is in line 1"),
        (["--train-list", "twice.txt"], "twice.txt: line 2: expected each clip once"),
        (["--train-list", "empty.txt"], "empty.txt: expected at least one clip, but the file lists none"),
    ],
)
def test_bad_lists(tmp_path, capsys, monkeypatch, more, message):
    annotated(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.txt").write_text(f"{CLIPS[0]}\n{CLIPS[0]}\n")
    (tmp_path / "empty.txt").write_text("\n")
    assert score(tmp_path, *more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_clips_and_list_exclude_each_other(tmp_path, capsys):
    annotated(tmp_path)
    with pytest.raises(SystemExit):
        score(tmp_path, "--clips", "a.txt", "--list", "flickr-178")
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "same", "related"),
    [
        ("00000000abc_000030\n", [0], [1]),
        ("00000000abc_30\n", [0], [1]),
        ("00000000abc_000030.mp4\n", [0], [1]),
        ("videos/00000000abc_30.webm,bird\n", [0], [1]),
        ("00000000abc\n", [0, 1], []),
        ("00000000abc.mp4\n", [0, 1], []),
        ("00000000abc,30,bird,train\n", [0], [1]),
        ("00000000abc,30,bird,test\nz0000000abc,1,bird,train\n", [], []),
        ("-0000000_bc_7,a\n00000000abc_050_01500,cello\n", [2], [0, 1]),
        ("ytid\nx0000000abc_1\ny0000000abc_3\n", [3], [4]),
        ("nothing\n", [], []),
    ],
)
def test_forms_of_training_lists(tmp_path, text, same, related):
    path = tmp_path / "train.txt"
    path.write_text(text)
    records = [Record(clip, ("bird",), ((),)) for clip in CLIPS]
    leak = find_leak(path, records)
    assert leak.same == tuple(CLIPS[i] for i in same)
    assert leak.related == tuple(CLIPS[i] for i in related)
    assert leak.scored == 5


def test_flickr_ids_name_no_video(tmp_path):
    """They have eleven digits, like ids of YouTube."""
    path = tmp_path / "train.txt"
    path.write_text(f"{LISTED[0]}\n")
    leak = find_leak(path, [Record(clip, (), ((),)) for clip in LISTED[:3]])
    assert (leak.same, leak.related) == ((LISTED[0],), ())


def test_any_clip_of_a_mixture_counts(tmp_path):
    annotated(tmp_path)
    (tmp_path / "duet.csv").write_text(f"{CLIPS[0]},bird,{CLIPS[2]},bird\n{CLIPS[3]},bird,{CLIPS[4]},bird\n")
    (tmp_path / "pairs.csv").write_text(f"video,audio,label\n{CLIPS[3]},{CLIPS[2]},non-sounding\n")
    (tmp_path / "train.txt").write_text(f"{CLIPS[2]}\n")
    arguments = {"boxes": None, "layout": "stacked", "on_invalid": "report", "clips": None}
    mixtures = read_benchmark(tmp_path / "duet.csv", "vggsound-duet", **arguments)
    assert find_leak(tmp_path / "train.txt", mixtures.records).same == (f"{CLIPS[0]}+{CLIPS[2]}",)
    extended = read_benchmark(tmp_path / "pairs.csv", "vggss-extended", **arguments)
    assert find_leak(tmp_path / "train.txt", extended.records).same == (CLIPS[2], f"{CLIPS[3]}+{CLIPS[2]}")


def test_metrics_with_and_without_seen_clips(tmp_path, capsys):
    annotated(tmp_path)
    (tmp_path / "train.csv").write_text("00000000abc,30,bird,train\nx0000000abc,1,bird,train\n")
    assert score(tmp_path, "--train-list", tmp_path / "train.csv", "--seed", 2) == 0
    printed = capsys.readouterr().out
    assert (
        "2 of the 5 scored clips are in the training list train.csv (a list of your own, 2 ids), "
        "and 1 more are of videos in it\n" in printed
    )
    unseen = [CLIPS[2], CLIPS[4]]
    found = measured(tmp_path)
    leak = found["training_list"]
    assert (leak["name"], leak["ids"]) == ("a list of your own", 2)
    assert leak["scored_clips_in_it"] == [CLIPS[0], CLIPS[3]]
    assert leak["scored_clips_of_its_videos"] == [CLIPS[1]]
    for protocol, part in leak["without_these_clips"].items():
        assert {**part["metrics"], **part["counts"]} == direct(tmp_path, unseen, protocol)
        every = found["protocols"][protocol]["metrics"]
        assert every == {name: direct(tmp_path, CLIPS, protocol)[name] for name in every}
        assert list(part["chance"]) == list(found["protocols"][protocol]["chance"])
        for name, value in every.items():
            other = part["metrics"][name]
            row = [f"{protocol}, {name}", f"{100 * value:.1f}", f"{100 * other:.1f}", f"{100 * (other - value):+.1f}"]
            assert row in [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    assert "all 5 clips | 2 not seen in training | difference |" in printed
    assert "2 of the 5 scored clips are in" in (tmp_path / "out" / "table.tex").read_text()


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (["z"], "0 of the 5 scored clips are in the training list train.txt (a list of your own, 1 ids)\n"),
        (CLIPS, "5 of the 5 scored clips are in the training list train.txt (a list of your own, 5 ids). No clip is"),
    ],
)
def test_there_is_no_table_without_two_parts(tmp_path, capsys, ids, sentence):
    annotated(tmp_path)
    (tmp_path / "train.txt").write_text("\n".join(ids))
    assert score(tmp_path, "--train-list", tmp_path / "train.txt", "--no-chance") == 0
    printed = capsys.readouterr().out
    assert sentence in printed
    assert "not seen in training" not in printed
    assert measured(tmp_path)["training_list"]["without_these_clips"] == {}


def test_public_training_lists_are_recognized(tmp_path, capsys):
    annotated(tmp_path, LISTED)
    (tmp_path / "train.txt").write_text("".join(f"{clip}.jpg\n" for clip in lists.get("flickr-249").ids))
    assert score(tmp_path, "--train-list", tmp_path / "train.txt", "--no-chance", protocol="lvs") == 0
    assert (
        "178 of the 178 scored clips are in the training list train.txt (flickr-249, 249 ids)"
        in capsys.readouterr().out
    )


def test_clips_without_a_map_stay_without_one(tmp_path):
    annotated(tmp_path)
    with np.load(tmp_path / "maps.npz") as archive:
        maps = dict(archive)
    np.savez(tmp_path / "maps.npz", **{clip: maps[clip] for clip in CLIPS[:4]})
    (tmp_path / "train.txt").write_text(f"{CLIPS[3]}\n")
    assert score(tmp_path, "--train-list", tmp_path / "train.txt", "--allow-missing", "--no-chance") == 0
    counts = measured(tmp_path)["training_list"]["without_these_clips"]["paper"]["counts"]
    assert (counts["samples"], counts["samples_without_map"]) == (4, 1)


def test_extended_sets(tmp_path):
    annotated(tmp_path)
    rows = [(CLIPS[0], CLIPS[1]), (CLIPS[2], "z0000000abc_000001")]
    (tmp_path / "pairs.csv").write_text("video,audio,label\n" + "".join(f"{a},{b},non-sounding\n" for a, b in rows))
    arguments = {"layout": "stacked", "on_invalid": "report", "clips": None}
    extended = read_benchmark(tmp_path / "pairs.csv", "vggss-extended", boxes=None, **arguments)
    assert [record.clip for record in extended.records] == [*CLIPS, *("+".join(row) for row in rows)]
    assert extended.task == "single"
    assert extended.truth(extended.records[-1], protocols.get("paper")).shape == (0, 224, 224)
    # a frame comes with its own sound and with another one: both are of the frame's video
    assert [extended.video(record) for record in extended.records[5:]] == [row[0].rpartition("_")[0] for row in rows]
    fewer = read_benchmark(tmp_path / "pairs.csv", "vggss-extended", boxes=None, same_class="drop", **arguments)
    assert len(fewer.records) == 6
    share = "Scored 6 of 7 annotated clips (85.7 %); 1 doubtful pairs or clips without a usable box left out"
    assert fewer.share(0) == share


def test_the_map_of_a_clip_without_a_source_is_no_surplus():
    negative = NegativeRecord("a+b", (), (), "a", "b")
    assert Surplus().with_clip(negative, torch.zeros(1, 2, 2)).clips == 0
    assert Surplus().with_clip(Record("a", (), ((),)), torch.zeros(2, 2, 2)).clips == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--boxes", "x.json"),
            "--boxes with vggsound-duet, vggss-extended, flickr-extended only, but got --format vggss",
        ),
        (("--same-class", "drop"), "--same-class drop with vggss-extended, flickr-extended only, but got vggss"),
    ],
)
def test_options_of_other_formats_are_refused(tmp_path, capsys, more, message):
    annotated(tmp_path)
    assert score(tmp_path, *more) == 2
    assert f"error: Expected {message}\n" in capsys.readouterr().err


def test_extended_flickr(tmp_path, capsys):
    folder = tmp_path / "Annotations"
    folder.mkdir()
    box = "<bbox><xmin>0</xmin><ymin>0</ymin><xmax>256</xmax><ymax>128</ymax></bbox>"
    for clip in ("1", "2", "3"):
        (folder / f"{clip}.xml").write_text(f"<annotation>{box}</annotation>")
    (tmp_path / "pairs.csv").write_text("video,audio,label\n1,2,non-sounding\n2,1,non-sounding\n")
    arguments = {"layout": "stacked", "on_invalid": "report", "clips": None}
    extended = read_benchmark(tmp_path / "pairs.csv", "flickr-extended", boxes=folder, **arguments)
    assert [record.clip for record in extended.records] == ["1", "2", "1+2", "2+1"]
    assert [extended.video(record) for record in extended.records] == ["1", "2", "1", "2"]
    assert extended.truth(extended.records[0], protocols.get("paper")).unique().tolist() == [0, 0.5]
    np.savez(tmp_path / "maps.npz", a=np.zeros((2, 2)))
    assert score(tmp_path, form="flickr-extended", annotations="pairs.csv") == 2
    assert "Expected --boxes, the folder of XML files" in capsys.readouterr().err


def test_boxes_of_dsol(tmp_path, capsys):
    box = {"normbox": [0.25, 0.5, 0.5, 0.25], "category_id": 1}
    frames = {
        "4Oy5VmaacaI_0_1000/frame_013/00411.jpg": [box],
        "4Oy5VmaacaI_0_1000/frame_013/00418.jpg": [box, {"normbox": [0, 0, 0.5, 0.5], "category_id": 3}],
        "4Oy5VmaacaI_0_1000/frame_013/00425.jpg": [],
    }
    (tmp_path / "duettest.json").write_text(json.dumps({frame: {"bbox": boxes} for frame, boxes in frames.items()}))
    ids = [f"4Oy5VmaacaI_013_00{number}" for number in (411, 418, 425)]  # maps of all frames, annotated or not
    np.savez(tmp_path / "maps.npz", **{clip: np.random.default_rng(0).random((2, 4, 4)) for clip in ids})
    assert score(tmp_path, "--no-chance", form="dsol-duet", annotations="duettest.json", protocol="noprior") == 0
    found = measured(tmp_path)
    assert (found["task"], found["clips"]) == ("mixtures", 2)
    assert "Scored 2 of 3 annotated clips (66.7 %); 1 without a usable box left out" in capsys.readouterr().out
    (tmp_path / "audioset_box.json").write_text(
        json.dumps({"8LYWfpPUokc/3": {"bbox": [{"normbox": [0, 0, 1, 0.5], "category": 2}]}})
    )
    np.savez(tmp_path / "maps.npz", **{"8LYWfpPUokc_3": np.ones((4, 4))})
    assert (
        score(tmp_path, "--no-chance", form="dsol-audioset", annotations="audioset_box.json", protocol="noprior") == 0
    )


def test_boxes_of_sslalign(tmp_path):
    names = ["dog_cat_7_dog", "dog_cat_7_cat"]
    entries = [{"image": f"/x/{n}.jpg", "audio": f"/x/{n}.wav", "gt_box": [0, 0, 112, 224]} for n in names]
    (tmp_path / "IS3.json").write_text(json.dumps(entries))
    np.savez(tmp_path / "maps.npz", **{name: np.array([[1.0, 0.0]]) for name in names})
    assert score(tmp_path, "--no-chance", form="sslalign", annotations="IS3.json", protocol="lvs") == 0
    assert measured(tmp_path)["protocols"]["lvs"]["counts"]["entries"] == 2
