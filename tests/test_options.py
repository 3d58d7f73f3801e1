"""Options: each has help, none can be abbreviated, and the page of options is up to date."""

from __future__ import annotations

import argparse
import ast
import importlib.util
from pathlib import Path

import pytest
from avsl.commands.all_parsers import all_parsers
from avsl.config import CONFIGS, Config
from avsl.yaml_files import read_yaml

from sslosses.evaluate import command, masks

ROOT = Path(__file__).resolve().parent.parent
PARSERS = {**all_parsers(), "sslosses.evaluate": command.build_parser(), "masks": masks.build_parser()}


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_has_help_and_no_abbreviation(name: str) -> None:
    parser = PARSERS[name]
    assert not parser.allow_abbrev
    hidden = [a.dest for a in parser._actions if a.help == argparse.SUPPRESS]
    assert hidden == (["options"] if name == "reproduce_tables.py" else [])  # its epilog explains them
    assert [a.dest for a in parser._actions if not (a.help or "").strip()] == []


def test_no_parser_of_the_project_takes_abbreviations() -> None:
    calls = []
    for path in ROOT.rglob("*.py"):
        if any(part.startswith(".venv") or part in ("build", "_build") for part in path.relative_to(ROOT).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ArgumentParser"):
                calls.append((path, {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}))
    assert len(calls) >= 25
    assert [str(path) for path, keywords in calls if keywords.get("allow_abbrev") != "False"] == []


def test_the_page_of_options_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_options", ROOT / "docs" / "make_options.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "Run: python docs/make_options.py"


def test_no_configuration_is_empty() -> None:
    empty = [path.name for path in CONFIGS.rglob("*.yaml") if not read_yaml(path)]
    assert empty == []


def test_the_configuration_of_music_spells_out_the_defaults() -> None:
    assert Config.load(["music"], {}) == Config()
    keys = read_yaml(CONFIGS / "music.yaml").keys()
    assert Config().as_dict().keys() - keys == {
        *("data_seed", "train_scenes", "test_scenes", "crops", "smoke_test"),  # of composed scenes
        *("pretraining_steps", "pretraining_rate", "visual_widths", "visual_depths", "visual_stride"),
        *("audio_widths", "audio_depths", "audioclip_map", "tokenizer", "method_options"),
        *("ori_margin", "ori_temperature"),  # of the separation loss
    }


def test_scoring_needs_no_protocol() -> None:
    line = ["--maps", "maps", "--annotations", "vggss.json", "--format", "vggss", "--out", "out"]
    assert command.build_parser().parse_args(line).protocol == "paper"


def test_a_backbone_leaves_the_data_set_and_what_else_comes_before_it_alone() -> None:
    for backbone in ("clip-clap", "efficientnet-lite0", "audioclip"):
        config = Config.load(["vggsound", backbone], {})
        assert (config.dataset, config.subsets) == ("vggsound", ("duet",))
        assert Config.load([backbone], {}) == Config.load(["music", backbone], {})
