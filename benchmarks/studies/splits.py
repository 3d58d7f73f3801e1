"""What the public lists of clips share, and what a centered Gaussian scores on each of them.

    python benchmarks/studies/splits.py --metadata DIR

The folder is that of benchmarks/make_clip_lists.py. Takes half a minute on one core. Writes
benchmarks/results/splits.md, splits-training.md, splits-facts.md and splits-chance.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from study import markdown, metadata_folder, study_parser, write_text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from make_clip_lists import WANTED, ids_of, path_of

from sslosses.annotations import Annotations, lists, read_extended, read_vggss
from sslosses.metrics import SoundLocalization

VGGSS = [name for name in lists.available("test") if name.startswith("vggss-") and "extended" not in name]
FLICKR = [name for name in lists.available("test") if name.startswith("flickr-") and "extended" not in name]
PROTOCOL = "lvs"


def all_ids(metadata: Path) -> dict[str, set[str]]:
    """The ids of every list whose files there are."""
    return {wanted.name: set().union(*(ids_of(path_of(metadata, *file)) for file in wanted.files)) for wanted in WANTED}


def overview() -> str:
    """One row per list: name, number of clips, files, license, what to know."""
    rows = []
    for name in sorted(lists.available(), key=lambda name: (lists.get(name).part, name)):
        entry = lists.get(name)
        files = ", ".join(f"{source.repository.partition('/')[2]} `{source.file}`" for source in entry.sources)
        licenses = ", ".join(dict.fromkeys(source.license or "none" for source in entry.sources))
        rows.append((f"`{name}`", entry.part, f"{entry.count:,}", files, licenses, entry.note))
    return markdown(("list", "clips for", "clips", "files", "license", ""), rows)


def shared(ids: dict[str, set[str]], tests: Sequence[str], trainings: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """One row per training list: how many clips of each test list it holds."""
    for training in trainings:
        counts = [len(ids[training] & ids[test]) if test in ids else None for test in tests]
        cells = [_share(count, lists.get(test).count) for count, test in zip(counts, tests, strict=True)]
        yield (f"`{training}`", f"{len(ids[training]):,}", *cells)


def _share(count: int | None, total: int) -> str:
    if count is None:
        return "–"
    if not count:
        return "0"
    return f"{count:,} ({100 * count / total:.0f} %)" if 100 * count >= total else f"{count:,} (< 1 %)"


def training(ids: dict[str, set[str]]) -> str:
    """How many test clips each training list holds."""
    names = lists.available("training")
    parts = []
    for tests, start in ((VGGSS, "vggsound-"), (FLICKR, "flickr-")):
        tests = [test for test in tests if test in ids]
        columns = ("training list", "clips", *(f"`{test}`" for test in tests))
        parts.append(markdown(columns, shared(ids, tests, [name for name in names if name.startswith(start)])))
    return "\n".join(parts)


def chance(ids: dict[str, set[str]], annotations: Annotations) -> str:
    """What a map scores that never looks at the frame, on each test list of VGG-SS."""
    offset = (torch.arange(224) + 0.5) / 224 - 0.5
    gaussian = torch.exp(-8 * (offset[:, None] ** 2 + offset**2))
    rows = []
    for name in (name for name in VGGSS if name in ids):
        metric = SoundLocalization(PROTOCOL, task="single")
        boxes = [annotations[clip].boxes for clip in sorted(ids[name])]
        for start in range(0, len(boxes), 64):
            chunk = boxes[start : start + 64]
            metric.update(gaussian.expand(len(chunk), 1, -1, -1), chunk)
        rows.append((f"`{name}`", *(f"{100 * float(metric.compute()[column]):.1f}" for column in metric.metrics)))
    return markdown(("list", *(f"{column}, %" for column in metric.metrics)), rows)


def facts(ids: dict[str, set[str]], metadata: Path, annotations: Annotations) -> str:
    """Other counts that the page states."""
    first, second = ids["vggss-heard-2564"], ids["vggss-heard-2425"]
    classes = [{annotations[clip].classes[0] for clip in part} for part in (first, second)]
    three = ids["vggss-4911"] & ids["vggss-4670"]
    extended = read_extended(metadata / "lists" / "stoneMo+SLAVC" / "vggss_test_plus_silent.csv", annotations).report
    rows = (
        ("clips in both `vggss-4911` and `vggss-4670`", f"{len(three):,}"),
        ("heard classes of EZ-VSL, of SSL-TIE", f"{len(classes[0])}, {len(classes[1])}"),
        ("classes that both call heard", len(classes[0] & classes[1])),
        ("clips that SSL-TIE calls heard and EZ-VSL unheard", f"{len(second & ids['vggss-unheard-2575']):,}"),
        ("clips that both call heard", f"{len(second & first):,}"),
        ("pairs without a source in Extended VGG-SS", f"{extended.negatives:,}"),
        ("of these, a clip with its own sound", len(extended.own_sound)),
        ("of these, two clips of one class", f"{len(extended.same_class):,}"),
        ("images of `flickr-1666` in `flickr-250`", len(ids["flickr-1666"] & ids["flickr-250"])),
        (
            "videos of `music-solo-2124`, and those in `music-solo-train-44532`",
            _videos(ids, "solo-2124", "solo-train-44532"),
        ),
        (
            "videos of `music-duet-1020`, and those in `music-duet-train-48348`",
            _videos(ids, "duet-1020", "duet-train-48348"),
        ),
    )
    return markdown(("count", ""), rows)


def _videos(ids: dict[str, set[str]], test: str, training: str) -> str:
    """The number of videos of a test list of MUSIC, and how many of them are in a training list."""
    tested, trained = ({clip[:11] for clip in ids[f"music-{name}"]} for name in (test, training))
    return f"{len(tested)}, {len(tested & trained)}"


def main() -> None:
    parser = study_parser(__doc__, metadata=True)
    options = parser.parse_args()
    metadata = metadata_folder(parser, options)
    ids = all_ids(metadata)
    annotations = read_vggss(metadata / "vggss.json")
    tables = {
        "splits": overview(),
        "splits-training": training(ids),
        "splits-facts": facts(ids, metadata, annotations),
        "splits-chance": chance(ids, annotations),
    }
    for name, text in tables.items():
        write_text(options.output / f"{name}.md", text)
        print(text)


if __name__ == "__main__":
    main()
