"""The command ``evaluate.py``: its metrics are those of the maps that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from avsl.commands.arguments import THRESHOLDS
from avsl.commands.evaluate import main
from avsl.evaluation import job, timing
from avsl.model.checkpoints import open_model
from PIL import Image

import sslosses.evaluate

from .conftest import CONFIG, write_checkpoint

PROTOCOLS = "noprior,avgn"
# An untrained model finds too many sources, or none.
pytestmark = pytest.mark.filterwarnings("ignore:.* samples have :UserWarning")


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def score_maps(maps: Path, annotations: Path, form: str, protocol: str, out: Path, *more: str) -> dict[str, Any]:
    line = ["--maps", maps, "--annotations", annotations, "--format", form, "--protocol", protocol, "--out", out, *more]
    assert sslosses.evaluate.main([*map(str, line), "--no-sheet"]) == 0
    return metrics(out)["protocols"]


def agree(ours: dict[str, Any], scored: dict[str, Any]) -> None:
    assert ours.keys() == scored.keys()
    for name, result in scored.items():
        assert ours[name]["metrics"] == pytest.approx(result["metrics"], abs=1e-6), name
        assert ours[name]["counts"] == result["counts"], name
        assert ours[name]["description"] == result["definition"]
        assert ours[name]["chance"] == {row: pytest.approx(levels) for row, levels in result["chance"].items()}


@pytest.fixture
def no_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than all the rest."""
    monkeypatch.setattr(job, "draw_sheet", lambda *_, **__: None)


@pytest.mark.usefixtures("no_sheet")
@pytest.mark.parametrize("sources", ["known", "found"])
def test_music(run: Path, duets: Path, tmp_path: Path, sources: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    report = {"lists": {"music_duet_test.csv": {"listed": 1000, "prepared": 3}}}
    (duets / "metadata" / "report.json").write_text(json.dumps(report))
    line = [str(run), "--data-root", str(duets), "--protocol", PROTOCOLS, "--out", str(out), "--batch-size", "2"]
    no_chance = [] if sources == "known" else ["--no-chance"]
    assert main([*line, "--sources", sources, *no_chance]) == 0
    printed = capsys.readouterr().out
    content = metrics(out)
    assert list(content["subsets"]) == ["solo", "duet"]
    assert [found["scenes_of_public_list"] for found in content["subsets"].values()] == [None, 1000]
    for text in (printed, (out / "table.md").read_text()):
        assert "3 of 1,000 scenes of the public list (0.3 %)" in text
    assert "interval" in printed
    assert len([line for line in printed.splitlines() if line.split() == ["samples", "3"]]) == 2
    assert (
        len([line for line in printed.splitlines() if line.split()[:5] == ["share", "of", "the", "public", "list"]])
        == 1
    )
    assert sum(line.startswith("share of the public list") for line in printed.splitlines()) == 1
    for subset, found in content["subsets"].items():
        annotations = duets / "metadata" / f"music_{subset}.json"
        maps = out / "maps" / f"music-{subset}.npz"
        scored = score_maps(maps, annotations, f"music-{subset}", PROTOCOLS, tmp_path / subset, *no_chance)
        agree(found["protocols"], scored)
        result = found["protocols"]["noprior"]
        low_high = found["protocols"]["noprior"]["videos"]["intervals"]["AUC"]
        assert any("noprior AUC" in row and f"{100 * low_high[0]:.1f} to" in row for row in printed.splitlines())
        assert any("noprior AUC" in row and _cell(result, "AUC") in row for row in printed.splitlines())
        assert sum(part["entries"] for part in result["per_size"].values()) == 3 * (1 if subset == "solo" else 2)
        assert (found["scenes"], found["layout"], found["resolution"]) == (3, "one", [8, 8])
    assert set(content["subsets"]["duet"]["protocols"]["noprior"]["per_class"]) == {"cello", "flute"}
    # only mixtures with an unknown number of sources have counts
    counted = {subset: found.get("counting") for subset, found in content["subsets"].items()}
    with np.load(out / "maps" / "music-duet.npz") as maps:
        numbers = [len(maps[name]) for name in maps.files]
    if sources == "known":
        assert counted == {"solo": None, "duet": None}
        assert max(numbers) <= 2
    else:
        assert max(numbers) > 2
        accuracy = content["subsets"]["duet"]["protocols"]["noprior"]["metrics"]["CountAcc"]
        found = {str(n): numbers.count(n) for n in sorted(set(numbers))}
        assert counted == {"solo": None, "duet": {"accuracy": pytest.approx(accuracy), "found": found}}
        assert f"Right number of sources: {100 * accuracy:.1f} %" in printed


@pytest.mark.usefixtures("no_sheet")
def test_thresholds_of_the_identification(run: Path, duets: Path, tmp_path: Path) -> None:
    line = [str(run), "--data-root", str(duets), "--subsets", "duet", "--sources", "found", "--no-chance"]
    assert main([*line, "--out", str(tmp_path / "own")]) == 0
    given = ["--background-threshold", "0.99", "--merge-threshold", "-0.9", "--peak-threshold", "-0.5"]
    assert main([*line, *given, "--out", str(tmp_path / "given")]) == 0
    own, other = (metrics(tmp_path / name) for name in ("own", "given"))
    trained = open_model(run, torch.device("cpu")).config
    assert own["thresholds"] == {name: getattr(trained, name) for name in THRESHOLDS}
    assert other["thresholds"] == {"peak_threshold": -0.5, "background_threshold": 0.99, "merge_threshold": -0.9}
    # Everything is linked to everything: one source a scene.
    assert other["subsets"]["duet"]["counting"]["found"] == {"1": 3}
    assert own["subsets"]["duet"]["counting"] != other["subsets"]["duet"]["counting"]


def _cell(result: dict[str, Any], name: str) -> str:
    return f"{100 * result['metrics'][name]:.1f}"


@pytest.mark.usefixtures("no_sheet")
@pytest.mark.parametrize("sources", ["known", "found"])
def test_vggsound(run: Path, vggsound: Path, tmp_path: Path, sources: str) -> None:
    out = tmp_path / "out"
    line = [str(run), "--dataset", "vggsound", "--data-root", str(vggsound), "--protocol", PROTOCOLS, "--no-chance"]
    assert main([*line, "--sources", sources, "--out", str(out)]) == 0
    subsets, lists = metrics(out)["subsets"], vggsound / "metadata"
    assert {s: (f["scenes"], f["layout"], f["resolution"]) for s, f in subsets.items()} == {
        "single": (3, "one", [8, 8]),
        "duet": (3, "side-by-side", [8, 8]),
        "trio": (1, "side-by-side", [8, 8]),
    }
    maps = out / "maps" / "vggsound-single.npz"
    single = score_maps(maps, lists / "vggss.json", "vggss", PROTOCOLS, tmp_path / "1", "--no-chance")
    agree(subsets["single"]["protocols"], single)
    for subset in ("duet", "trio"):
        scored = score_maps(
            out / "maps" / f"vggsound-{subset}.npz",
            lists / f"vggsound_{subset}_test.csv",
            "vggsound-duet",
            PROTOCOLS,
            tmp_path / subset,
            *("--layout", "side-by-side", "--no-chance"),
        )
        agree(subsets[subset]["protocols"], scored)
    with np.load(out / "maps" / "vggsound-trio.npz") as maps:
        assert maps["a+b+c"].shape[1:] == (8, 24)
    with np.load(out / "maps" / "vggsound-duet.npz") as maps:
        assert maps.files == ["c+a", "a+b", "b+c"]


@pytest.mark.usefixtures("no_sheet")
def test_a_protocol_that_inverts_maps(run: Path, duets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = [str(run), "--data-root", str(duets), "--subsets", "duet", "--protocol", "tvsl", "--no-chance"]
    assert main([*line, "--out", str(out)]) == 0
    with np.load(out / "maps" / "music-duet.npz") as maps:
        np.savez(tmp_path / "negated.npz", **{name: -maps[name] for name in maps.files})
    annotations = duets / "metadata" / "music_duet.json"
    scored = score_maps(tmp_path / "negated.npz", annotations, "music-duet", "tvsl", tmp_path / "scored", "--no-chance")
    agree(metrics(out)["subsets"]["duet"]["protocols"], scored)


def test_files(run: Path, duets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = [str(run), "--data-root", str(duets), "--protocol", "paper", "--out", str(out), "--no-chance"]
    assert main(line) == 0
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    own = {
        "metrics.json",
        "table.md",
        "music-solo.png",
        "music-duet.png",
        "music-solo-paper.tex",
        "music-duet-paper.tex",
    }
    assert files == own | {"maps/music-solo.npz", "maps/music-duet.npz"}
    result = metrics(out)["subsets"]["duet"]["protocols"]["paper"]
    assert result["chance"] == {}
    assert f"result & {_cell(result, 'CAP')} &" in (out / "music-duet-paper.tex").read_text()
    page = (out / "table.md").read_text()
    assert page.index("## music solo") < page.index("## music duet")
    assert f"| result | {_cell(result, 'CAP')} |" in page
    assert "| size, % | CAP | CIoU@0.3 | AUC | entries |" in page
    for name in ("music-solo.png", "music-duet.png"):
        with Image.open(out / name) as image:
            image.load()


@pytest.mark.usefixtures("no_sheet")
def test_the_data_of_the_run(run: Path, duets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --data-root, those that the run names; results go to a folder of its name."""
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG.as_dict() | {"data": str(duets)}))
    monkeypatch.chdir(tmp_path)
    assert main([str(run / "checkpoints" / "last.ckpt"), "--no-chance", "--subsets", "solo"]) == 0
    content = metrics(tmp_path / "evaluation" / "tiny-music")
    assert (content["data"], content["sources"]) == (str(duets), "known")
    assert list(content["subsets"]) == ["solo"]


@pytest.mark.usefixtures("no_sheet")
def test_composed_data(run: Path, duets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose data do not exist, or a lone checkpoint, is evaluated on what its configuration composes."""
    asked = []

    def compose(root: Path, description: object) -> Path:
        asked.append((root, description))
        return duets

    monkeypatch.setattr("avsl.data.composed.dataset.ensure_composed", compose)
    alone = write_checkpoint(tmp_path / "alone.ckpt")
    line = ["--no-chance", "--subsets", "solo", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main([str(alone), *line]) == 0
    ((root, description),) = asked
    assert root == tmp_path / "data"
    assert (description.seed, description.train, description.test) == (0, 800, 200)


@pytest.mark.usefixtures("no_sheet")
def test_time_and_memory(
    run: Path, duets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, "REPEATS", 2)
    out = tmp_path / "out"
    line = [str(run), "--data-root", str(duets), "--no-chance", "--time", "--batch-size", "7", "--out", str(out)]
    assert main([*line, "--device", "cpu", "--sources", "found"]) == 0
    measured = metrics(out)["timing"]
    assert list(measured) == ["solo", "duet"]
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    learned = ("weight", "bias")
    assert measured["solo"]["parameters"] == sum(v.numel() for n, v in state.items() if n.endswith(learned))
    for values in measured.values():
        assert values["frame"] == [64, 64]
        assert [batch["batch_size"] for batch in values["batches"]] == [1, 7]
        assert all(batch["seconds_per_image"] > 0 and batch["peak_bytes"] > 50e6 for batch in values["batches"])
    assert f"{measured['duet']['parameters']:,} parameters, on cpu" in capsys.readouterr().out


def test_data_that_are_gone(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Other scenes in their place would give metrics of something else."""
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG.as_dict() | {"data": str(tmp_path / "MUSIC")}))
    assert main([str(run), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 2
    assert f"Expected `data_root`, since the data of this run, {tmp_path / 'MUSIC'}, do not exist" in caplog.text


def test_test_clips_that_the_model_was_trained_on(
    run: Path, duets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG.as_dict() | {"data": str(duets)}))
    line = [str(run), "--out", str(tmp_path / "out"), "--no-chance"]
    assert main(line) == 0
    assert "training clips" not in caplog.text
    with (duets / "metadata" / "music_solo_train.txt").open("a") as out:
        out.write("g,cello\n")
    assert main(line) == 0
    for subset in ("solo", "duet"):
        note = f"1 of 3 test clips of {subset} are also training clips, and 0 more are of the same videos"
        for text in (caplog.text, (tmp_path / "out/metrics.json").read_text(), (tmp_path / "out/table.md").read_text()):
            assert note in text


class Unsafe:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run while loading",)


def zero_weights(path: Path) -> None:
    """Without its checksum, this would be read as weights of 0."""
    weights = torch.full((5000,), 3.0)
    torch.save({"state_dict": {"a": weights}, "hyper_parameters": {}}, path)
    content = path.read_bytes().replace(weights[:1000].numpy().tobytes(), bytes(4000), 1)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda _: None, "there is no folder or file"),
        (lambda path: path.mkdir(), "holds no checkpoints/last.ckpt"),
        (lambda path: path.write_text("hello"), "can't be read as weights"),
        (lambda path: path.write_bytes(b""), "can't be read as weights"),
        (zero_weights, "it is damaged: model/data/"),
        (lambda path: torch.save({"state_dict": {}, "hyper_parameters": Unsafe()}, path), "can't be read as weights"),
        (lambda path: torch.save({"weights": torch.ones(1)}, path), "no weights with a configuration"),
        (lambda path: torch.save([1], path), "no weights with a configuration"),
        (
            lambda path: torch.save({"state_dict": {}, "hyper_parameters": {"lr": 0.1}}, path),
            "checkpoint of this example, but",
        ),
        (
            lambda path: torch.save(
                {"state_dict": {}, "hyper_parameters": {"config": CONFIG.as_dict(), "text_features": 10}}, path
            ),
            "checkpoint of this example, but: Error",
        ),
    ],
)
def test_a_wrong_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], made: Any, said: str
) -> None:
    path = tmp_path / "model.ckpt"
    made(path)
    assert main([str(path), "--out", str(tmp_path / "out")]) == 2
    assert said in caplog.text
    assert str(path) in caplog.text
    assert "run while loading" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--protocol", "paper,best"], "Expected `protocol` to be"),
        (["--subsets", "trio"], "Expected `subsets` of music out of solo, duet"),
        (["--device", "cuda:77"], "Expected `device` to be auto, cpu or a GPU of this machine, but got 'cuda:77'"),
        (["--device", "toaster"], "but got 'toaster'"),
        (["--dataset", "vggsound"], "vggss.json"),
    ],
)
def test_wrong_options(
    run: Path, duets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, more: list[str], said: str
) -> None:
    assert main([str(run), "--data-root", str(duets), "--out", str(tmp_path / "out"), *more]) == 2
    assert said in caplog.text
    assert not (tmp_path / "out").exists()


def test_the_sheet_shows_as_many_sources_as_were_found(
    run: Path, duets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(job, "draw_sheet", lambda _, drawn, **__: shown.extend(drawn))
    line = [str(run), "--data-root", str(duets), "--no-chance", "--subsets", "duet", "--out", str(tmp_path / "out")]
    assert main([*line, "--sources", "found"]) == 0
    ((_, prediction),) = shown
    found = prediction.valid.sum(1)
    assert prediction.maps.shape[1] == max(2, int(found.max()))
    # the sources that were found come first
    assert torch.equal(prediction.valid, torch.arange(prediction.valid.shape[1]) < found[:, None])


@pytest.mark.usefixtures("no_sheet")
@pytest.mark.parametrize("threshold", ["held-out", "oracle"])
def test_negative_sounds(
    run: Path, vggsound: Path, tmp_path: Path, threshold: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    line = [str(run), "--dataset", "vggsound", "--data-root", str(vggsound), "--subsets", "single", "trio"]
    given = [] if threshold == "held-out" else [threshold]
    assert main([*line, "--no-chance", "--out", str(out), "--negative-sounds", *given]) == 0
    subsets = metrics(out)["subsets"]
    assert "negative_sounds" not in subsets["trio"]  # all three classes are in sight
    found = subsets["single"]["negative_sounds"]
    counts = (1, 2) if threshold == "held-out" else (3, 3)
    assert (found["result"]["oracle"], found["estimated"], found["scored"]) == (threshold == "oracle", *counts)
    printed, page = capsys.readouterr().out, (out / "table.md").read_text()
    values = found["result"]["metrics"]
    assert f"| pIA noise | {100 * values['pIA noise']:.1f} |" in page
    for text in (printed, page):
        assert f"{counts[1]} scenes; threshold {found['threshold']:.3f}, the third quartile" in text
    assert f"{100 * values['CIoU_U']:.1f}" in next(row for row in printed.splitlines() if row.startswith("CIoU_U"))


@pytest.mark.usefixtures("no_sheet")
@pytest.mark.parametrize("composed", [False, True])
def test_saliency_beside_the_model(run: Path, duets: Path, tmp_path: Path, composed: bool) -> None:
    if composed:  # only composed scenes have this file
        (duets / "metadata" / "silent_objects.json").write_text(json.dumps({name: [] for name in "efg"}))
    line = [str(run), "--data-root", str(duets), "--subsets", "duet", "--out"]
    rows = {}
    for name, more in {"plain": [], "asked": ["--saliency"], "alone": ["--saliency", "--no-chance"]}.items():
        assert main([*line, str(tmp_path / name), *more]) == 0
        rows[name] = metrics(tmp_path / name)["subsets"]["duet"]["protocols"]["paper"]["chance"]
    assert (job.SALIENCY in rows["plain"]) == composed
    assert list(rows["asked"]) == ["centered Gaussian", "whole frame", "random maps", job.SALIENCY]
    assert list(rows["alone"]) == [job.SALIENCY]
    assert main([*line, str(tmp_path / "none"), "--no-chance"]) == 0
    assert metrics(tmp_path / "none")["subsets"]["duet"]["protocols"]["paper"]["chance"] == {}
