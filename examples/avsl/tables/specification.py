"""A table as ``configs/tables/<number>.yaml`` describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config import CONFIGS
from ..yaml_files import read_yaml

Metrics = tuple[float | None, ...]
SINGLE, MIXTURES = ("AP", "IoU@0.5", "AUC"), ("CAP", "CIoU@0.3", "AUC")


@dataclass(frozen=True)
class TestSet:
    """One of the five test sets, and the runs that are tested on it."""

    __test__ = False

    name: str
    dataset: str
    subset: str
    #: What a model is trained on: MUSIC's two subsets together, VGGSound's scenes of one size.
    subsets: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the paper's metrics."""
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
    """A method: its configuration where it is ours to run, and the paper's metrics for each of the table's sets.

    ``data`` says on what it is run: "real" (it needs pretrained weights, which composed data are not for), "composed",
    or "any".
    """

    name: str
    config: str | None
    paper: tuple[Metrics, ...]
    data: str = "any"


@dataclass(frozen=True)
class Contrast:
    """What one thing does: the mean difference over the pairs of rows, with it and without, that differ in it alone."""

    name: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Args:
        number: the paper's.
        title: what it shows.
        sets: the paper's test sets.
        also: sets that the paper does not report, on which the rows are told apart too.
        rows: to be run.
        others: the paper's metrics for other methods.
        axis: what the rows vary, if they can be plotted along it.
        contrasts: what is told about pairs of rows.
    """

    number: int
    title: str
    sets: tuple[TestSet, ...]
    also: tuple[TestSet, ...]
    rows: tuple[Row, ...]
    others: tuple[Row, ...]
    axis: str | None
    contrasts: tuple[Contrast, ...]

    def paper(self, row: Row, test_set: TestSet) -> Metrics:
        """The paper's metrics of ``row``; None where it has none."""
        if test_set not in self.sets or not row.paper:
            return (None,) * len(test_set.metrics)
        return row.paper[self.sets.index(test_set)]


def numbers() -> list[int]:
    """The tables that there are."""
    return sorted(int(path.stem) for path in (CONFIGS / "tables").glob("*.yaml"))


def read_table(number: int) -> Table:
    """Table ``number``.

    Raises:
        ValueError: if there is none.
    """
    if number not in numbers():
        raise ValueError(f"Expected `table` to be one of {', '.join(map(str, numbers()))}, but got {number}")
    read = read_yaml(CONFIGS / "tables" / f"{number}.yaml")
    return Table(
        number,
        read["title"],
        tuple(SETS[name] for name in read["sets"]),
        tuple(SETS[name] for name in read.get("also", ())),
        tuple(_row(row) for row in read["rows"]),
        tuple(_row(row) for row in read.get("others", ())),
        read.get("axis"),
        tuple(Contrast(c["name"], tuple((a, b) for a, b in c["pairs"])) for c in read.get("contrasts", ())),
    )


def _row(values: dict[str, Any]) -> Row:
    paper = tuple(tuple(metrics) for metrics in values.get("paper", ()))
    return Row(values["name"], values.get("config"), paper, values.get("data", "any"))
