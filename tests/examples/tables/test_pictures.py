"""Pictures beside the tables, and Table 9, on a tiny model."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from avsl.config import Config
from avsl.data.folders import all_captions
from avsl.data.loading import TrainingScenes
from avsl.data.music import MusicFolder
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.legend import source_labels
from avsl.evaluation.predict import predict
from avsl.evaluation.score import mean_reference_deviation
from avsl.evaluation.sheet import DPI
from avsl.model.caption_features import CaptionTable
from avsl.model.localizer import Localizer
from avsl.tables.cost import measure_cost, write_cost
from avsl.tables.pictures import caption_sheet, compare_maps, draw_maps
from PIL import Image

from ..conftest import TINY

CONFIG = Config(**TINY, batch_size=2, workers=0)


@pytest.fixture
def model() -> Localizer:
    torch.manual_seed(0)
    made = Localizer(CONFIG.as_dict(), 10)
    made.method.text.fit(torch.randn(30, 10), 1.0)
    return made


def training(root: Path) -> TrainingScenes:
    pools = [MusicFolder(root).training_pool(subset) for subset in ("solo", "duet")]
    texts = sorted({t for pool in pools for t in all_captions(pool.clips)})
    generator = torch.Generator().manual_seed(0)
    table = CaptionTable(torch.randn(len(texts), 10, generator=generator), {t: i for i, t in enumerate(texts)})
    return TrainingScenes(root, pools, table, CONFIG)


def test_maps_of_several_rows(model: Localizer, music: Path, tmp_path: Path) -> None:
    run = tmp_path / "run" / "checkpoints"
    run.mkdir(parents=True)
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, run / "last.ckpt")
    path = tmp_path / "sheet.png"
    compare_maps(path, [("one", run.parent), ("two", run.parent)], load_held_out(MusicFolder(music), "duet", 64))
    with Image.open(path) as image:
        image.load()
        assert image.height > image.width  # one duet of two sources, two rows below the frames


def test_every_row_and_column_is_named_and_a_missing_source_is_marked(model: Localizer, music: Path) -> None:
    duets = load_held_out(MusicFolder(music), "duet", 64)
    shown = duets._replace(test=duets.test._replace(scenes=duets.test.scenes * 2, boxes=duets.test.boxes * 2))
    prediction = predict(model, shown)
    all_found, none_found = (prediction._replace(valid=torch.full_like(prediction.valid, v)) for v in (True, False))
    names = [f"row {number}" for number in range(7)]
    figure = draw_maps({name: none_found if name == "row 3" else all_found for name in names}, shown)
    grid = [figure.axes[4 * line : 4 * line + 4] for line in range(8)]
    assert [line[0].get_ylabel().replace("\n", " ") for line in grid] == ["frames with the ground truth", *names]
    labels = source_labels(shown, 0)
    assert [axis.get_title() for axis in grid[0]] == [
        f"scene {s}, source {n}:\n{labels[n - 1]}" for s in (1, 2) for n in (1, 2)
    ]
    assert [axis.get_title() for axis in grid[4]] == [f"source {n}: not found" for n in (1, 2, 1, 2)]
    assert [axis.texts[0].get_text() for axis in grid[4]] == [f"{labels[n]}\nnot found" for n in (0, 1, 0, 1)]
    assert not any(axis.get_title() or axis.texts for axis in grid[3])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][-1] == "the model has found no such source"
    figure.set_dpi(DPI)
    figure.canvas.draw()
    assert all(axis.get_window_extent().width >= 200 for axis in figure.axes)
    plt.close(figure)


def test_captions_on_their_frames(music: Path, tmp_path: Path) -> None:
    folder = MusicFolder(music)
    caption_sheet(tmp_path / "captions.png", folder, folder.training_pool("solo").clips)
    with Image.open(tmp_path / "captions.png") as image:
        image.load()


def test_cost(model: Localizer, music: Path, tmp_path: Path) -> None:
    cost = measure_cost(model, training(music), load_held_out(MusicFolder(music), "duet", 64), CONFIG)
    assert cost["training"]["batch_size"] == 2
    assert cost["inference"]["batches"][0]["seconds_per_image"] > 0
    assert cost["training"]["seconds_per_iteration"] > 0
    paths = write_cost(cost, tmp_path, "A note.")
    assert json.loads(paths[0].read_text()) == cost
    text = paths[1].read_text()
    assert "| T-VSL | 1.53 | 22 | 0.051 | 0.81 |" in text
    assert f"| ours | {cost['training']['seconds_per_iteration']:.3g} |" in text
    assert paths[2].read_text().count(r"\\") == 4


def test_collapse_is_seen(model: Localizer, music: Path) -> None:
    scenes = training(music)
    alive = mean_reference_deviation(model, scenes)["deviation of reference maps"]
    with torch.no_grad():  # the same feature everywhere: constant maps
        model.visual.head.weight.zero_()
    assert alive > 0.1
    assert mean_reference_deviation(model, scenes)["deviation of reference maps"] == pytest.approx(0, abs=1e-4)


def test_deviation_leaves_out_padding(model: Localizer, music: Path) -> None:
    loader = training(music).train_dataloader()
    batch = next(iter(loader))
    real = int(batch.source_mask.sum()) + len(batch.frames)
    deviation = partial(model.eval().method.reference_deviation, encoders=model.encoders)
    assert deviation(batch).shape == (real,)
    changed = batch._replace(foreground=batch.foreground.masked_fill(~batch.source_mask[..., None], 3.0))
    assert torch.equal(deviation(changed), deviation(batch))
