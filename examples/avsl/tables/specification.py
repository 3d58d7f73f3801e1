"""The contents of a table, read from ``configs/tables/<number>.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config import CONFIGS
from ..yaml_files import read_yaml

CAPTIONS, COST = 6, 9  #: Numbers of the tables that need more than runs.

#: The paper's values of one row on one test set, in the order of :attr:`TestSet.metrics`.
PaperValues = tuple[float | None, ...]
SINGLE, MIXTURES = ("AP", "IoU@0.5", "AUC"), ("CAP", "CIoU@0.3", "AUC")


@dataclass(frozen=True)
class TestSet:
    """One of the five test sets, with the subsets that its runs are trained on."""

    __test__ = False

    name: str
    dataset: str
    subset: str
    #: MUSIC's runs are trained on both subsets, VGGSound's on scenes of one size.
    subsets: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the paper reports."""
        return SINGLE if self.subset in ("solo", "single") else MIXTURES


SETS = {
    s.name: s
    for s in (
        TestSet("MUSIC-Solo", "music", "solo", ("solo", "duet")),
        TestSet("MUSIC-Duet", "music", "duet", ("solo", "duet")),
        TestSet("VGGSound-Single", "vggsound", "single", ("single",)),
        TestSet("VGGSound-Duet", "vggsound", "duet", ("duet",)),
        TestSet("VGGSound-Trio", "vggsound", "trio", ("trio",)),
    )
}


@dataclass(frozen=True)
class Row:
    """A method with the paper's values on each of the table's test sets.

    ``config`` is its configuration, for methods that we can run, and ``composed`` the one on composed scenes, if it has
    another there. ``data`` says which data it is run on: "real" (it needs pretrained weights, which do not suit
    composed data), "composed" or "any". ``needs`` is a file without which the row is not run. An ``untrained`` row has
    the scores of the model before training.
    """

    name: str
    config: str | None
    paper: tuple[PaperValues, ...]
    data: str = "any"
    composed: str | None = None
    needs: str | None = None
    untrained: bool = False

    def config_on(self, *, composed: bool) -> str | None:
        """Returns the name of the row's configuration on composed scenes or on real data."""
        return (self.composed if composed else None) or self.config


@dataclass(frozen=True)
class Contrast:
    """The effect of one component: the mean difference over pairs of rows (with it, without it), otherwise equal."""

    name: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Args:
        number: its number in the paper.
        title: what it shows.
        sets: the test sets that the paper reports.
        also: further test sets, which the paper does not report.
        rows: the methods that we run.
        others: the paper's values of other methods.
        axis: the quantity that varies from row to row, if there is one.
        contrasts: the differences to report between pairs of rows.
    """

    number: int
    title: str
    sets: tuple[TestSet, ...]
    also: tuple[TestSet, ...]
    rows: tuple[Row, ...]
    others: tuple[Row, ...]
    axis: str | None
    contrasts: tuple[Contrast, ...]

    def paper(self, row: Row, test_set: TestSet) -> PaperValues:
        """Returns the paper's values of ``row``; None where the paper has none."""
        if test_set not in self.sets or not row.paper:
            return (None,) * len(test_set.metrics)
        return row.paper[self.sets.index(test_set)]


def numbers() -> list[int]:
    """Returns the numbers of all tables."""
    return sorted(int(path.stem) for path in (CONFIGS / "tables").glob("*.yaml"))


def read_table(number: int) -> Table:
    """Reads table ``number``.

    Raises:
        ValueError: if there is no such table.
    """
    if number not in numbers():
        raise ValueError(f"Expected `table` to be one of {', '.join(map(str, numbers()))}, but got {number}")
    values = read_yaml(CONFIGS / "tables" / f"{number}.yaml")
    return Table(
        number,
        values["title"],
        tuple(SETS[name] for name in values["sets"]),
        tuple(SETS[name] for name in values.get("also", ())),
        tuple(_row(row) for row in values["rows"]),
        tuple(_row(row) for row in values.get("others", ())),
        values.get("axis"),
        tuple(Contrast(c["name"], tuple((a, b) for a, b in c["pairs"])) for c in values.get("contrasts", ())),
    )


def _row(values: dict[str, Any]) -> Row:
    paper = tuple(tuple(row) for row in values.get("paper", ()))
    others = ("data", "composed", "needs", "untrained")
    return Row(values["name"], values.get("config"), paper, **{key: values[key] for key in others if key in values})
