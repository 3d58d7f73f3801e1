"""Writes docs/reference/options.md: every option of every command, from the parsers themselves.

python docs/make_options.py
"""

from __future__ import annotations

import argparse
import html
import re
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from avsl.commands.all_parsers import all_parsers
from avsl.config import CHOICES

from sslosses.evaluate import command, masks

PAGE = Path(__file__).resolve().parent / "reference" / "options.md"
CONFIGURATION = "configuration"  # the group of options that are keys of the configuration
INTRODUCTION = """# Options of all commands

<!-- Made by `python docs/make_options.py`. Change the help texts in the code, not this page. -->

This page has every option of every command, as `--help` prints them. An option can't be abbreviated. The commands that
train have the keys of the [configuration](#configuration) as options, too.
"""
ABOUT_CONFIGURATION = """
Each key is an option of `train_music.py`, `train_vggsound.py` and `train_flickr.py`, with dashes: `ori_epsilon` is
`--ori-epsilon`. It is also a key of the YAML files that `--config` names. `reproduce_tables.py` takes these options
after `--`, for all of its runs. An option overrides the files. The default applies if neither sets the key.
"""
_DEFAULT = re.compile(r" \(default: (.*)\)$")


def page() -> str:
    """Returns the text of the page."""
    parsers = all_parsers()
    parts = [INTRODUCTION]
    for name, parser in parsers.items():
        parts.append(_section(f"examples/{name}", f"python examples/{name}", parser))
    for module, parser in (
        ("evaluate", command.build_parser()),
        ("evaluate.masks", masks.build_parser()),
    ):
        parts.append(_section(f"sslosses.{module}", f"python -m sslosses.{module}", parser))
    keys = _actions(parsers["train_music.py"], configuration=True)
    rows = [[f"`{a.dest}`", *_help(parsers["train_music.py"], a)] for a in keys]
    parts.append(f"## Configuration\n{ABOUT_CONFIGURATION}\n{_table(['key', 'what it is', 'default'], rows)}")
    return "\n".join(parts)


def _section(title: str, call: str, parser: argparse.ArgumentParser) -> str:
    rows = [[_name(a), *_help(parser, a)] for a in _actions(parser, configuration=False)]
    table = _table(["option", "what it does", "default"], rows)
    return f"## {title}\n\n`{call}`: {_escaped(parser.description or '')}\n\n{table}"


def _actions(parser: argparse.ArgumentParser, *, configuration: bool) -> Iterable[argparse.Action]:
    for group in parser._action_groups:
        if (group.title == CONFIGURATION) == configuration:
            yield from (a for a in group._group_actions if a.help != argparse.SUPPRESS and a.dest != "help")


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    required = ", required" if action.required else ""
    return f"`{action.option_strings[-1]}`{required}"


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> list[str]:
    """The help without its default, with the choices, and the default."""
    text = parser._get_formatter()._expand_help(action)
    default = _DEFAULT.search(text)
    text = _DEFAULT.sub("", text)
    choices = action.choices or CHOICES.get(action.dest if action.default is argparse.SUPPRESS else "")
    if choices:
        text += f". One of {', '.join(f'`{choice}`' for choice in choices)}"
    return [_escaped(text), f"{_escaped(default[1])}" if default else ""]


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
