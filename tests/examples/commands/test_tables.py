"""The command ``reproduce_tables.py``: specifications, shared runs, and the files it writes."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
from avsl.commands import tables
from avsl.commands.tables import main, parse_arguments
from avsl.config import CONFIGS, Config
from avsl.evaluation.report import SMOKE_TEST
from avsl.tables import runs as runs_module
from avsl.tables.collect import BASELINES, collect
from avsl.tables.runs import Plan, Run, complete_runs
from avsl.tables.specification import SETS, Row, numbers, read_table
from avsl.tables.statistics import Estimate
from PIL import Image

METRICS = {"solo": ("AP", "IoU@0.5", "AUC"), "duet": ("CAP", "CIoU@0.3", "AUC")}


@pytest.mark.parametrize("number", numbers())
def test_every_row_is_a_configuration(number: int) -> None:
    table = read_table(number)
    for row in (*table.rows, *table.others):
        assert all(len(metrics) == 3 for metrics in row.paper)
        assert len(row.paper) in (0, len(table.sets))
        configs = [Config.load(["composed", name], {}) for name in (row.config, row.composed) if name]
        assert len({config.method for config in configs}) <= 1
    assert {name for c in table.contrasts for pair in c.pairs for name in pair} <= {row.name for row in table.rows}


@pytest.mark.parametrize("number", [1, 2])
def test_a_row_without_its_file_is_left_out(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    options = argparse.Namespace(seeds=[0], only=None, rows=None)

    def backbones(plan: Plan) -> set[str]:
        runs = tables._runs(read_table(number), plan, options).values()
        return {run.configuration.backbone for (run, *_) in filter(None, runs)}

    real = Plan(None, {"music": tmp_path}, tmp_path, tmp_path)
    assert backbones(real) == {"resnet", "clip-clap"}
    message = (
        f"Table {number}: rows that are not run, since there is no file AudioCLIP-Full-Training.pt here: "
        "“AudioCLIP as backbone”, “AudioCLIP”, “AVGN on AudioCLIP”, “T-VSL on AudioCLIP”."
    )
    assert message in caplog.text
    caplog.clear()
    assert backbones(Plan("composed", {}, tmp_path, tmp_path)) == {"efficientnet-lite0"}
    (tmp_path / "AudioCLIP-Full-Training.pt").touch()
    assert backbones(real) == {"resnet", "clip-clap", "audioclip"}
    assert caplog.text == ""


def test_complete_runs_of_a_row_need_its_file_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = Run(plan(tmp_path, music=tmp_path), "music", ("solo", "duet"), "methods/audioclip/avgn", 1)
    finish(done, 50.0)
    runs = tables._runs(read_table(1), done.plan, argparse.Namespace(seeds=[0, 1], only=None))
    assert [run for (row, _), runs in runs.items() if row.needs for run in runs] == [done]


def test_an_untrained_row_has_the_scores_before_training(tmp_path: Path) -> None:
    row = Row("before", None, (), untrained=True)
    after = dataclasses.replace(row, name="after", untrained=False)
    table, test_set = dataclasses.replace(read_table(1), rows=(row, after)), SETS["MUSIC-Duet"]
    run = Run(plan(tmp_path), "music", ("solo", "duet"), None, 0)
    finish(run, 50.0)
    result = collect(table, [test_set], {key: [run] for key in ((row, test_set), (after, test_set))}, "iterative")
    assert [row.cells["MUSIC-Duet"][0].values for row in result.rows] == [{0: 20.0}, {0: 50.0}]


def test_metrics_as_printed() -> None:
    losses = read_table(3)
    assert [losses.paper(row, SETS["VGGSound-Duet"]) for row in losses.rows[:4]] == [
        (28.8, 31.4, 26.2),
        (34.3, 49.1, 34.8),
        (43.8, 50.9, 43.1),
        (45.9, 55.2, 44.8),
    ]
    assert losses.paper(losses.rows[0], SETS["MUSIC-Duet"]) == (None, None, None)
    assert read_table(4).paper(read_table(4).rows[2], SETS["MUSIC-Duet"]) == (61.4, 45.9, 36.1)
    with pytest.raises(ValueError, match=r"`table` to be one of 1, 2, .*, but got 10"):
        read_table(10)


def plan(tmp_path: Path, **roots: Path) -> Plan:
    return Plan(None if roots else "composed", roots, tmp_path / "runs", tmp_path / "data")


def test_composed_scenes_have_their_own_options(tmp_path: Path) -> None:
    arguments = ["--table", "1", "--only", "VGGSound-Duet"]
    chosen = ("omega=0.3", "temperature=0.015")
    for place, expected in ((plan(tmp_path), chosen), (plan(tmp_path, vggsound=tmp_path), ())):
        runs = tables._runs(read_table(1), place, parse_arguments(arguments))
        options = {row.name: run.configuration.method_options for (row, _), by_seed in runs.items() for run in by_seed}
        assert options["LVS"] == expected


def test_only_some_rows() -> None:
    table = tables._with_rows(read_table(3), ["OCA", "OCA + ORI"])
    assert [row.name for row in table.rows] == ["OCA", "OCA + ORI"]
    assert not table.contrasts  # each needs rows that are left out
    assert tables._with_rows(read_table(3), [row.name for row in read_table(3).rows]).contrasts


@pytest.mark.parametrize("number", [1, 2])
def test_t_vsl_has_a_row_without_audioclip_on_composed_scenes_only(number: int, tmp_path: Path) -> None:
    options = argparse.Namespace(seeds=[0], only=None, rows=None)
    for place, expected in ((plan(tmp_path), {"efficientnet-lite0"}), (plan(tmp_path, music=tmp_path), set())):
        runs = tables._runs(read_table(number), place, options)
        chosen = [run.configuration for (row, _), by_seed in runs.items() if "T-VSL w" in row.name for run in by_seed]
        assert {config.backbone for config in chosen} == expected
        assert {config.method for config in chosen} <= {"t-vsl"}


def test_rows_with_the_same_values_are_one_run(tmp_path: Path) -> None:
    place = plan(tmp_path)
    same = {
        Run(place, "music", ("solo", "duet"), config, 3).name
        for config in (None, "table3/oca-ori", "table4/tau-0.7", "table8/oca-1-ori-0.1", "table6/true", "table7/minilm")
    }
    assert same == {"composed-music-solo+duet-default-seed3"}
    other = Run(place, "vggsound", ("duet",), "table4/tau-0.1", 0)
    assert other.name == "composed-vggsound-duet-tau=0.1-seed0"
    line = other.command()
    assert line[line.index("--config") : line.index("--seed")] == [
        "--config", "composed", "vggsound", "table4/tau-0.1", "--subsets", "duet",
    ]  # fmt: skip


@pytest.mark.parametrize("number", numbers())
def test_every_run_has_a_folder_and_a_log(number: int, tmp_path: Path) -> None:
    """Names on a hub have slashes, and those of three files are longer than the name of one can be."""
    place, table, by_name = plan(tmp_path, music=tmp_path, vggsound=tmp_path), read_table(number), {}
    place.runs.mkdir()
    for row in table.rows:
        for test_set in table.sets:
            run = Run(place, test_set.dataset, test_set.subsets, row.config, 0)
            run.check()
            assert not run.complete
            run.log.touch()
            run.folder.mkdir(exist_ok=True)
            assert by_name.setdefault(run.name, run.configuration) == run.configuration
            assert run.name.startswith(f"{test_set.dataset}-")
            assert run.name.endswith("-seed0")


def test_options_of_every_run(tmp_path: Path) -> None:
    place = Plan("quick", {}, tmp_path / "runs", tmp_path / "data", ("--epochs", "7", "--devices", "2"))
    run = Run(place, "music", ("duet",), "table4/tau-0.1", 3)
    assert run.command()[-4:] == ["--epochs", "7", "--devices", "2"]
    c = run.configuration
    assert (c.epochs, c.devices, c.tau, c.seed, c.subsets) == (7, 2, 0.1, 3, ("duet",))


@pytest.mark.slow
def test_a_table_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs, table, maps and cost, as small as possible."""
    line = f"--table 7 9 --quick --only MUSIC-Duet --runs {tmp_path / 'runs'} --data {tmp_path / 'data'}".split()
    small = [
        "--train-scenes",
        "8",
        "--test-scenes",
        "4",
        "--batch-size",
        "8",
        "--epochs",
        "1",
    ]
    assert main([*line, "--out", str(tmp_path / "out"), "--", *small]) == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made >= {f"table7{s}" for s in (".md", ".csv", ".tex", ".png", "-MUSIC-Duet.png")}
    assert made >= {f"table7-clustering{s}" for s in (".md", ".csv", ".tex", ".png")}
    assert made >= {"table9.md", "table9.json", "table9.tex"}
    assert len(list((tmp_path / "runs").glob("*/metrics.json"))) == 2
    assert "| ours |" in capsys.readouterr().out
    texts = [path for path in (tmp_path / "out").iterdir() if path.suffix != ".png"]
    heads = {path.name: SMOKE_TEST in path.read_text() for path in texts}
    assert heads.pop("table9.json") is False
    assert json.loads((tmp_path / "out" / "table9.json").read_text())["smoke_test"] is True
    assert all(heads.values()), heads
    run = next((tmp_path / "runs").glob("*/metrics.json")).parent
    assert SMOKE_TEST in (run / "table.md").read_text()
    assert not any("compare the order" in path.read_text() for path in (tmp_path / "out").glob("*.md"))


def test_a_users_folders(tmp_path: Path) -> None:
    run = Run(plan(tmp_path, vggsound=tmp_path / "vgg"), "vggsound", ("single",), None, 0)
    assert run.name == "vggsound-single-default-seed0"
    assert run.command()[-2:] == ["--data-root", str(tmp_path / "vgg")]
    assert "quick" not in run.command()


def finish(run: Run, value: float, clustering: float | None = None) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    row = {f"{s} {f}": value for s, metrics in METRICS.items() for f in (*metrics, "> silent", "> twin")}
    trained = row | {"deviation of reference maps": 5.0}
    rows = {"trained": trained} | {baseline: dict.fromkeys(row, 20.0) for baseline in BASELINES}
    if clustering is not None:
        rows["trained, clustering"] = dict.fromkeys(row, clustering)
        rows["untrained, clustering"] = dict.fromkeys(row, 10.0)
    (run.folder / "metrics.json").write_text(json.dumps({"percent": rows, "seconds": {"training": 1.0}}))


def finished(tmp_path: Path, seeds: int) -> list[str]:
    table = read_table(3)
    for i, row in enumerate(table.rows):
        for seed in range(seeds):
            finish(
                Run(plan(tmp_path), "music", ("solo", "duet"), row.config, seed),
                30 + i + 2 * seed + 0.5 * (i == 2) * seed,
            )
    line = ["--table", "3", "--only", "MUSIC-Duet", "--runs", str(tmp_path / "runs")]
    return [*line, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--seeds", *map(str, range(seeds))]


def test_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(finished(tmp_path, 3)) == 0
    text = (tmp_path / "out" / "table3.md").read_text()
    assert text in capsys.readouterr().out + "\n"
    half = 4.302652729911275 * 2 / math.sqrt(3)  # of 30, 32, 34
    assert f"| neither (tri-map) | 32.0 ± {half:.1f} |" in text
    assert "| centered Gaussian | 20.0 ± 0.0 |" in text
    # each row is the first plus a constant, except OCA, whose distance grows with the seed
    assert "| ORI (and tri-map) | **+1.0 ± 0.0** |" in text
    assert "| OCA | **+2.5 ± 1.2** |" in text
    assert "| ORI (beside tri-map, OCA, both) | **+0.8 ± 0.4** |" in text  # 1, 1 − seed / 2 and 1
    with (tmp_path / "out" / "table3.csv").open() as lines:
        rows = {(r["row"], r["metric"]): r for r in csv.DictReader(lines)}
    first = rows["neither (tri-map)", "CAP"]
    assert (first["set"], float(first["mean"]), first["seeds"]) == ("MUSIC-Duet", 32.0, "3")
    assert first["values"] == "0:30.000 1:32.000 2:34.000"
    assert "compare the order of the rows" in first["note"]
    assert SMOKE_TEST not in text
    latex = (tmp_path / "out" / "table3.tex").read_text()
    assert latex.count("tabular") == 2
    assert r"$\pm$" in latex
    with Image.open(tmp_path / "out" / "table3.png") as image:
        image.load()


def test_both_identifications_are_written(tmp_path: Path) -> None:
    line, out = finished(tmp_path, 2), tmp_path / "out"
    for i, row in enumerate(read_table(3).rows):
        finish(Run(plan(tmp_path), "music", ("solo", "duet"), row.config, 0), 30.0 + i, clustering=50.0 + i)
    assert main([*line, "--write-only"]) == 0
    paper, ours = ((out / f"table3{suffix}.md").read_text() for suffix in ("", "-clustering"))
    assert paper.startswith("# Table 3: ")
    assert ours.splitlines()[0] == f"{paper.splitlines()[0]}, clustering"
    assert "by the iterative identification of the paper" in paper
    assert "by clustering, which is this library's and not the paper's" in ours
    assert "| untrained | 20.0 ± 0.0 |" in paper
    assert "| untrained (1 of 2 seeds) | 10.0 |" in ours
    assert "| neither (tri-map) | 31.0 ± " in paper  # 30 and 32
    assert "| neither (tri-map) | 50.0 |" in ours.replace(" (1 of 2 seeds)", "")  # one run is of an earlier version
    assert {path.name for path in out.glob("table3*.csv")} == {"table3.csv", "table3-clustering.csv"}


def test_runs_of_earlier_versions_have_one_identification(tmp_path: Path) -> None:
    assert main([*finished(tmp_path, 1), "--write-only"]) == 0
    assert {path.name for path in (tmp_path / "out").glob("table3*.md")} == {"table3.md"}


def test_one_seed_claims_no_spread(tmp_path: Path) -> None:
    assert main(finished(tmp_path, 1)) == 0
    text = (tmp_path / "out" / "table3.md").read_text()
    assert "±" not in text
    assert "one seed: no spread is known" in text
    assert "seed by seed" not in text


def test_differences_are_between_the_same_seeds(tmp_path: Path) -> None:
    line = finished(tmp_path, 3)
    missing = Run(plan(tmp_path), "music", ("solo", "duet"), "table3/ori", 1)
    (missing.folder / "metrics.json").unlink()
    assert main([*line, "--write-only"]) == 0
    text = (tmp_path / "out" / "table3.md").read_text()
    assert "| ORI (and tri-map) (2 of 3 seeds) | 33.0 ± " in text
    assert "| ORI (and tri-map) | **+1.0 ± 0.0** |" in text


def test_differences_are_from_the_first_row_with_values(tmp_path: Path) -> None:
    line = finished(tmp_path, 2)
    for seed in range(2):
        (Run(plan(tmp_path), "music", ("solo", "duet"), "table3/trimap", seed).folder / "metrics.json").unlink()
    assert main([*line, "--write-only"]) == 0
    text = (tmp_path / "out" / "table3.md").read_text()
    assert "Difference from “ORI (and tri-map)”" in text
    assert "| tri-map + OCA | **+3.0 ± 0.0** |" in text


def test_a_single_row_has_no_differences(tmp_path: Path) -> None:
    line = finished(tmp_path, 2)
    line[1] = "1"
    assert main([*line, "--write-only"]) == 0
    text = (tmp_path / "out" / "table1.md").read_text()
    assert "| ResNet-18 | 61.4 | 34.0 ± " in text  # the first table's OCA + ORI
    assert "Difference" not in text


def test_nothing_is_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = finished(tmp_path, 2)
    monkeypatch.setattr(runs_module.subprocess, "Popen", None)
    assert main(line) == 0


def test_a_complete_run_with_other_options_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = finished(tmp_path, 1)
    run = Run(plan(tmp_path), "music", ("solo", "duet"), None, 0)
    written = run.configuration.as_dict() | {"data": "/anywhere", "workers": 9}
    (run.folder / "config.yaml").write_text(json.dumps(written))
    assert main([*line, "--write-only"]) == 0
    (run.folder / "config.yaml").write_text(json.dumps(written | {"epochs": 1}))
    assert main([*line, "--write-only"]) == 2
    assert f"{run.folder} holds a run with another epochs. Choose another --runs" in caplog.text
    assert main([*line, "--write-only", "--", "--rate", "0.5"]) == 2
    assert f"{run.folder} holds a run with another epochs, rate. " in caplog.text


def test_features_can_be_computed_anew_although_rows_differ_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the message says when the disk is full, also after some rows are complete."""
    monkeypatch.chdir(tmp_path)
    Path("AudioCLIP-Full-Training.pt").touch()
    place = plan(tmp_path, music=tmp_path)
    done = Run(place, "music", ("solo", "duet"), "audioclip", 0)
    finish(done, 50.0)
    (done.folder / "config.yaml").write_text(json.dumps(done.configuration.as_dict() | {"data": str(tmp_path)}))
    commands = []
    monkeypatch.setattr(tables, "complete_runs", lambda runs, _: commands.extend(run.command() for run in runs) or [])
    line = f"--table 1 --only MUSIC-Duet --music {tmp_path} --runs {place.runs} --data {tmp_path} --out {tmp_path}/out"
    assert main([*line.split(), "--", "--cache-features", "false"]) == 0
    assert {tuple(command[-2:]) for command in commands} == {("--cache-features", "false")}
    assert main([*line.split(), "--", "--cache-features", "true"]) == 2
    assert "The options after -- do not suit the run music-solo+duet-default-seed0: Expected `mirror`" in caplog.text


def test_a_complete_run_on_another_folder_is_not_taken(tmp_path: Path) -> None:
    run = Run(plan(tmp_path, music=tmp_path / "one"), "music", ("solo", "duet"), None, 0)
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(json.dumps(run.configuration.as_dict() | {"data": str(tmp_path / "one")}))
    run.check()
    other = Run(plan(tmp_path, music=tmp_path / "two"), "music", ("solo", "duet"), None, 0)
    with pytest.raises(ValueError, match="holds a run with another data"):
        other.check()


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
@pytest.mark.usefixtures("interruptible")
def test_runs_end_with_a_command_that_alone_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, signal; os.kill(os.getppid(), signal.SIGINT); signal.pause()"
    monkeypatch.setattr(Run, "command", lambda _: [runs_module.sys.executable, "-c", code])
    monkeypatch.setattr(runs_module, "_GRACE", 0.1)
    with pytest.raises(KeyboardInterrupt):
        complete_runs([Run(plan(tmp_path), "music", ("duet",), None, 0)], 1)


def test_failed_runs_are_named_and_the_rest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = finished(tmp_path, 2)
    broken = Run(plan(tmp_path), "music", ("solo", "duet"), "table3/oca", 1)
    (broken.folder / "metrics.json").unlink()
    monkeypatch.setattr(
        Run, "command", lambda _: [runs_module.sys.executable, "-c", "print('no'); raise SystemExit(3)"]
    )
    assert main(line) == 1
    assert f"failed: {broken.name}" in caplog.text
    assert (tmp_path / "runs" / f"{broken.name}.log").read_text() == "no\n"
    assert "| OCA (1 of 2 seeds) | 32.0 |" in (tmp_path / "out" / "table3.md").read_text()


def test_runs_share_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os; print(os.environ['OMP_NUM_THREADS'])"
    monkeypatch.setattr(Run, "command", lambda _: [runs_module.sys.executable, "-c", code])
    monkeypatch.setattr(runs_module.os, "cpu_count", lambda: 8)
    some = [Run(plan(tmp_path), "music", ("duet",), None, seed) for seed in (1, 0)]
    assert complete_runs(some, 2) == []
    assert {p.read_text() for p in (tmp_path / "runs").glob("*.log")} == {"4\n"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--table 3 --only Flickr", "Expected `only` out of VGGSound-Duet, MUSIC-Duet, MUSIC-Solo for table 3"),
        ("--table 3 --rows OCA ORI", "Expected `rows` out of neither (tri-map)"),
        ("--table 5 --music x", "Table 5 needs VGGSound-Trio: give the folder"),
        ("--table 11", "Expected `table` to be one of"),
        ("--table 4 -- --tau 0.3", "Expected options for all runs after --, but the runs differ in tau"),
        ("--table 4 -- --seed 3 --subsets duet", "the runs differ in seed, subsets"),
        ("--table 4 -- --config quick", "Expected options of the configuration after --, but got --config quick"),
        ("--table 4 -- --epochs 1 --name x", "Expected options of the configuration after --, but got --name x"),
    ],
)
def test_wrong_arguments(line: str, message: str, caplog: pytest.LogCaptureFixture) -> None:
    assert main(line.split()) == 2
    assert message in caplog.text


def test_a_repeated_seed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--table", "4", "--seeds", "0", "1", "0"])
    assert "Expected each of `--seeds` once, but got 0 1 0" in capsys.readouterr().err


def test_estimates() -> None:
    assert Estimate.of([]) is None
    assert str(Estimate.of([61.44])) == "61.4"
    assert str(Estimate.of([1.0, 3.0])) == f"2.0 ± {12.706204736432095:.1f}"


def test_configurations_lie_beside_each_other() -> None:
    assert {p.parent.name for p in CONFIGS.glob("table*/*.yaml")} >= {f"table{n}" for n in (3, 4, 6, 7, 8)}
