"""The work of ``python -m sslosses.evaluate``: scores the maps and writes the results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sslosses.evaluate import sheet
from sslosses.evaluate.benchmark import Benchmark
from sslosses.evaluate.leaks import Leak
from sslosses.evaluate.maps_to_score import MapsToScore
from sslosses.evaluate.output import as_json, latex, tables
from sslosses.evaluate.progress import progress
from sslosses.evaluate.results_folder import atomic_write
from sslosses.evaluate.scoring import score, steps
from sslosses.evaluate.unseen import compare_unseen
from sslosses.metrics import Protocol

_FILES = ("metrics.json", "table.md", "table.tex", "sheet.png")


def score_and_write(
    options: argparse.Namespace,
    benchmark: Benchmark,
    protocols: Sequence[Protocol],
    maps: MapsToScore,
    leak: Leak | None,
) -> str:
    """Scores the maps, writes all files to ``options.out`` and returns the text to print."""
    total = steps(benchmark, protocols, not options.no_chance, maps.against is not None, len(maps.frame_only))
    with progress(total) as tick:
        scores = score(
            maps.saved,
            benchmark,
            protocols,
            missing=maps.missing,
            chance=not options.no_chance,
            seed=options.seed,
            tick=tick,
            resamples=options.resamples,
            against=maps.against,
            frame_only=maps.frame_only,
        )
    share = f"{benchmark.share(len(maps.missing))}\n{benchmark.identity}"
    comparison = None
    if leak is not None:
        share += f"\n{leak}"
        comparison = compare_unseen(
            leak,
            benchmark,
            scores,
            saved=maps.saved,
            protocols=protocols,
            missing=maps.missing,
            chance=not options.no_chance,
            seed=options.seed,
            resamples=options.resamples,
        )
    with atomic_write(options.out, _FILES) as temporary:
        table = tables(scores, share, options.breakdown)
        if comparison and comparison.unseen:
            table += f"\n{comparison}"
        (temporary / "table.md").write_text(table, encoding="utf-8")
        (temporary / "table.tex").write_text(latex(scores, share), encoding="utf-8")
        (temporary / "metrics.json").write_text(
            as_json(
                scores,
                benchmark,
                sorted(maps.missing),
                maps=str(options.maps),
                against=None if options.against is None else str(options.against),
                videos=None if options.videos is None else str(options.videos),
                annotations=str(options.annotations),
                format=options.format,
                on_invalid=options.on_invalid,
                seed=options.seed,
                resolution=scores.resolution,
                clip_list=benchmark.identity.to_dict(),
                training_list=comparison and comparison.to_dict(),
            ),
            encoding="utf-8",
            errors="backslashreplace",  # paths that are not UTF-8 become JSON escapes
        )
        if not options.no_sheet:
            sheet.draw(
                temporary / "sheet.png",
                scores.ranking,
                maps.saved,
                benchmark,
                protocols[0],
                missing=maps.missing,
                frames=options.frames_dir,
                per_group=options.pictures,
            )
    report = benchmark.annotations.report
    # metrics.json lists the boxes and clips themselves.
    return table + (f"\n{str(report).splitlines()[0]}\n" if report.invalid or report.without_box else "")
