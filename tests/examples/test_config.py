"""The configuration: YAML files, command line, and errors for wrong values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from avsl.commands.train import parse_arguments
from avsl.config import CONFIGS, Config, chosen_options

#: The names of all configurations; the files in tables/ describe tables.
NAMES = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.rglob("*.yaml")
    if path.parent.name != "tables"
)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_load(name: str) -> None:
    config = Config.load([name], {})
    assert config == Config.load([str(CONFIGS / f"{name}.yaml")], {})
    assert Config.from_dict(config.as_dict()) == config
    assert Config.load([name], {"epochs": 7}) == dataclasses.replace(config, epochs=7)
    for base in ("composed", "quick"):
        Config.load([base, name], {})


@pytest.mark.parametrize(
    ("name", "backbone", "weights", "cached"),
    [
        ("music", "resnet", ("microsoft/resnet-18", None), False),
        ("composed", "efficientnet-lite0", ("efficientnet-lite0", None), True),
        ("quick", "efficientnet-lite0", ("efficientnet-lite0", None), True),
        ("media", "efficientnet-lite0", ("efficientnet-lite0", None), True),
        ("efficientnet-lite0", "efficientnet-lite0", ("efficientnet-lite0", None), True),
        ("crops", "resnet", (None, None), False),
        ("clip-clap", "clip-clap", ("openai/clip-vit-base-patch16", "laion/clap-htsat-unfused"), True),
        ("audioclip", "audioclip", ("AudioCLIP-Full-Training.pt", "AudioCLIP-Full-Training.pt"), True),
    ],
)
def test_encoders_of_the_files(name: str, backbone: str, weights: tuple[str | None, str | None], cached: bool) -> None:
    """Weights that a file does not name are those of its backbone."""
    config = Config.load([name], {})
    assert (config.backbone, config.visual_weights, config.audio_weights) == (backbone, *weights)
    assert (config.cache_features, config.mirror) == (cached, not cached)
    assert config.tower_rate == 0


def test_no_system_reads_tokens_whose_similarities_are_inverted() -> None:
    """T-VSL's published evaluation reads AudioCLIP's tokens and inverts its maps; maps are not inverted here."""
    files = [path.stem for path in (CONFIGS / "methods" / "audioclip").glob("*.yaml")]
    assert {Config.load([f"methods/audioclip/{name}"], {}).audioclip_map for name in files} == {"values"}


def test_identification_of_the_files() -> None:
    """The paper's recipes use the paper's identification."""
    chosen = {name: Config.load([name], {}).identification for name in ("music", "vggsound", "composed", "quick")}
    assert chosen == {"music": "iterative", "vggsound": "iterative", "composed": "clustering", "quick": "clustering"}


def test_weights_of_ones_own() -> None:
    assert Config(backbone="efficientnet-lite0", visual_weights="own.pth").visual_weights == "own.pth"
    assert Config(backbone="efficientnet-lite0", visual_weights=None).visual_weights is None
    assert Config(audio_weights="folder").audio_weights == "folder"
    again = Config.from_dict(Config(backbone="clip-clap").as_dict())
    assert again.audio_weights == "laion/clap-htsat-unfused"


def test_the_music_file_is_the_paper() -> None:
    assert Config.load(["music"], {}) == Config()


def test_plain_values() -> None:
    values = Config(visual_weights=None, subsets=("duet",)).as_dict()
    assert (values["visual_weights"], values["subsets"]) == (None, ["duet"])
    assert {type(v) for v in values.values()} <= {int, float, str, bool, list, type(None)}
    assert set(values) == {f.name for f in dataclasses.fields(Config)}


def test_a_float_may_be_written_as_a_number_or_a_text() -> None:
    assert Config.from_dict({"rate": 1, "weight_decay": "1e-2"}) == Config(rate=1.0, weight_decay=0.01)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3, "sed": 1}, r"Unknown configuration key: epoch, sed\. Known: .*epochs"),
        ({"epochs": 1.5}, "Expected `epochs` to be int, but got 1.5"),
        ({"epochs": "3"}, "Expected `epochs` to be int, but got '3'"),
        ({"epochs": True}, "Expected `epochs` to be int, but got True"),
        ({"epochs": 0}, "Expected `epochs` to be at least 1, but got 0"),
        ({"rate": "fast"}, "Expected `rate` to be float, but got 'fast'"),
        ({"rate": True}, "Expected `rate` to be float, but got True"),
        ({"rate": None}, "Expected `rate` to be float, but got None"),
        ({"in_memory": 1}, "Expected `in_memory` to be bool, but got 1"),
        ({"visual_widths": 64}, "Expected `visual_widths` to be a list of int, but got 64"),
        ({"visual_widths": "64"}, "Expected `visual_widths` to be a list of int, but got '64'"),
        ({"visual_widths": [64, "a"]}, "Expected `visual_widths` to be int, but got 'a'"),
        ({"visual_weights": 3}, "Expected `visual_weights` to be str, but got 3"),
        ({"subsets": ["solo", "trio"]}, "Expected `subsets` of music out of solo, duet, but got .*trio"),
        ({"subsets": []}, "Expected `subsets` of music out of"),
        ({"subsets": ["solo", "solo"]}, "Expected `subsets` of music out of"),
        ({"dataset": "vggsound"}, "Expected `subsets` of vggsound out of single, duet, trio, but got .*solo"),
        ({"dataset": "flikr"}, "Expected `dataset` to be one of music, vggsound, flickr, but got 'flikr'"),
        ({"precision": "8-bit"}, "Expected `precision` to be one of 32-true, 16-mixed, .*, but got '8-bit'"),
        ({"accelerator": "tpu"}, "Expected `accelerator` to be one of auto, cpu, gpu, but got 'tpu'"),
        ({"accumulate": 0}, "Expected `accumulate` to be at least 1, but got 0"),
        ({"workers": -1}, "Expected `workers` to be at least 0, but got -1"),
        ({"devices": 0}, "Expected `devices` to be a number of devices, or -1 for all, but got 0"),
        ({"accumulate": 4, "checkpoint_steps": 6}, "`checkpoint_steps` to be a multiple of `accumulate` .4., .* 6"),
        ({"ori_target": "apart"}, "Expected `ori_target` to be one of complement, separate, but got 'apart'"),
        ({"ori_margin": 0.0}, "Expected `ori_margin` to be above 0, but got 0.0"),
        (
            {"identification": "kmeans"},
            "Expected `identification` to be one of iterative, clustering, repeat, single, own, given, .* 'kmeans'",
        ),
        ({"cache_features": True}, "Expected `mirror` to be false with `cache_features`, .* but got true"),
        ({"backbone": "efficientnet-lite0", "image_size": 100}, "`image_size` of .* a multiple of 32, but got 100"),
        ({"schedule": "cosine"}, "Expected `schedule` to be one of constant, one-cycle, but got 'cosine'"),
    ],
)
def test_wrong_values(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_dict(values)


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"one of .*composed, .*music, quick, .*but got 'compozed'"):
        Config.load(["compozed"], {})
    with pytest.raises(FileNotFoundError, match=r"but got '.*none\.yaml'"):
        Config.load([str(tmp_path / "none.yaml")], {})


@pytest.mark.parametrize("text", ["- 1", "epochs", "epochs: [1"])
def test_a_file_of_another_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"own\.yaml to hold lines of `key: value`"):
        Config.load([str(path)], {})


def test_the_command_line_is_put_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("epochs: 5\nrate: 1.0e-2\n")
    line = "--epochs 9 --in-memory true --visual-weights none --visual-widths 8 16 --subsets solo --tau 0.5"
    options = parse_arguments(["--config", str(path), *line.split()])
    assert Config.load(options.config, chosen_options(options)) == Config(
        epochs=9, rate=0.01, in_memory=True, visual_weights=None, visual_widths=(8, 16), subsets=("solo",), tau=0.5
    )


@pytest.mark.parametrize(
    ("line", "music", "vggsound"),
    [
        ("", "composed", "composed vggsound"),
        ("--quick", "quick", "quick vggsound"),
        ("--data-root x", "music", "vggsound"),
        ("--data-root x --quick", "quick", "quick vggsound"),
        ("--media x", "media", "media vggsound"),
        ("--soundfont x", "composed", "composed vggsound"),
        ("--soundfont x --quick", "quick", "quick vggsound"),
        ("--config music", "music", "music"),
        ("--config quick vggsound", "quick vggsound", "quick vggsound"),
    ],
)
def test_which_files(line: str, music: str, vggsound: str) -> None:
    assert parse_arguments(line.split()).config == music.split()
    assert parse_arguments(line.split(), dataset="vggsound").config == vggsound.split()
    assert Config.load(vggsound.split(), {}).dataset == ("music" if vggsound == "music" else "vggsound")


def test_later_files_are_put_over_earlier_ones(tmp_path: Path) -> None:
    for name, text in (("one", "base: quick\nepochs: 9\ntau: 0.5"), ("two", "epochs: 3")):
        (tmp_path / f"{name}.yaml").write_text(text)
    files = [str(tmp_path / f"{name}.yaml") for name in ("one", "two")]
    assert Config.load(files, {}) == Config.load(["quick"], {"epochs": 3, "tau": 0.5})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--epochs many", "argument --epochs: invalid int value: 'many'"),
        ("--in-memory yes", "expected true or false, got 'yes'"),
        ("--epoch-number 3", "unrecognized arguments"),
        ("--data-root x --media y", "--data-root and --media exclude each other"),
        ("--soundfont x --media y", "--media and --soundfont exclude each other"),
        ("--data-root x --soundfont y", "--data-root and --soundfont exclude each other"),
        ("--quick --config music", "--quick and --config exclude each other"),
    ],
)
def test_a_wrong_command_line(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_arguments(line.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_changes_its_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: quick\nepochs: 9\n", encoding="utf-8")
    assert Config.load([str(path)], {}) == Config.load(["quick"], {"epochs": 9})
    path.write_text("base: nowhere\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="but got 'nowhere'"):
        Config.load([str(path)], {})


def test_help_lists_every_key_with_its_values_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    text = " ".join(capsys.readouterr().out.split("\nconfiguration:\n")[1].split())
    for key in dataclasses.fields(Config):
        assert f"--{key.name.replace('_', '-')} " in text
    assert "--schedule {constant,one-cycle} learning-rate schedule (default: constant)" in text
    assert "--visual-depths int [int ...] blocks per stage of a visual ResNet from scratch (default: 2 2 2 2)" in text


def test_of_several_files_the_wrong_one_is_named(tmp_path: Path) -> None:
    good, bad, above = (tmp_path / f"{name}.yaml" for name in ("good", "bad", "above"))
    good.write_text("epochs: 3\n")
    bad.write_text("epoch: 3\n")
    above.write_text(f"base: {bad}\nseed: 1\n")
    for names in ([good, bad], [above]):
        with pytest.raises(ValueError, match=rf"{bad}: Unknown configuration key: epoch\."):
            Config.load([str(name) for name in names], {})
    bad.write_text("epochs: three\n")
    with pytest.raises(ValueError, match=rf"{bad}: Expected `epochs` to be int, but got 'three'"):
        Config.load([str(good), str(bad)], {})


def test_files_that_describe_tables_are_not_offered() -> None:
    with pytest.raises(FileNotFoundError, match=r"one of audioclip, clip-clap, .*table3/oca, (?!.*tables/)"):
        Config.load(["nowhere"], {})
