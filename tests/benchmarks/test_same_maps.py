"""The study of the same maps under every protocol: its rows, its labels and its frames without their sound."""

import matplotlib.pyplot as plt
import pytest
import same_maps
import torch

from sslosses.annotations import rasterize
from sslosses.metrics import LocalizationResult, SoundLocalization, protocols

BOXES = [[[(0.0, 0.0, 0.7, 0.7)]], [[(0.3, 0.3, 1.0, 1.0)]], [[(0.0, 0.3, 0.7, 1.0)]]]


def result_of(name, metrics, chance):
    counts = {"entries": 1, "samples": 1, "samples_without_map": 0, "empty_truths": 0, "samples_without_source": 0}
    return LocalizationResult(name, "", "mixtures", metrics, counts, chance=chance, oracle=protocols.get(name).oracle)


def test_table_puts_metrics_under_the_name_that_readers_take_them_for():
    levels = {
        "centered Gaussian": {"AP50": 0.2, "mCIoU": 0.1, "AUC": 0.0},
        "whole frame": dict.fromkeys(("AP50", "mCIoU", "AUC"), 0.3),
    }
    results = {"ez-vsl, fnac": result_of("ez-vsl", {"AP50": 0.5, "mCIoU": 0.4, "AUC": 0.25}, levels)}
    line = same_maps.table(results).splitlines()[-1]
    assert line == "| `ez-vsl`, `fnac` | AP50 **50.0** (30.0) | mCIoU **40.0** (30.0) | AUC **25.0** (30.0) |"


def test_oracles_are_marked_in_table_and_picture():
    levels = {name: {"CIoU@0.5": 0.1, "AUC": 0.1} for name in same_maps.CHANCE}
    results = {"acl": result_of("acl", {"CIoU@0.5": 0.5, "AUC": 0.4}, levels)}
    assert same_maps.table(results).splitlines()[-1].startswith("| `acl` (oracle) | – |")
    _, axis = plt.subplots()
    same_maps.draw(axis, results, "AUC")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["acl (oracle): AUC"]
    assert axis.lines[-1].get_marker() == "D"
    plt.close("all")


def test_protocols_that_compute_the_same_share_a_row():
    labels = same_maps.different_protocols()
    assert {"lvs, ssl-tie", "ez-vsl, fnac", "paper", "noprior"} <= set(labels)
    assert sorted(name for label in labels for name in label.split(", ")) == sorted(protocols.available())


@pytest.mark.parametrize(
    ("name", "sources", "expected"),
    [("acl", 1, True), ("acl", 2, False), ("slavc-fixed", 2, False), ("slavc", 2, True), ("dsol", 2, True)],
)
def test_thresholds_on_cosines_are_for_single_maps(name, sources, expected):
    assert same_maps.is_meant_for(protocols.get(name), sources) == expected


def test_cosines_are_divided_by_the_temperature_of_the_protocol():
    maps = torch.tensor([[0.3, -0.6]])
    torch.testing.assert_close(same_maps.in_range(maps, protocols.slavc), maps / 0.03)
    assert same_maps.in_range(maps, protocols.lvs) is maps


def test_frames_without_their_sound_enter_the_detection_metrics():
    generator = torch.Generator().manual_seed(0)
    own = torch.stack([rasterize(boxes[0], 7).float() for boxes in BOXES])[:, None] * 0.4
    own = own + 0.1 * torch.rand(own.shape, generator=generator)
    other = own + torch.tensor([0.3, -0.3, 0.3])[:, None, None, None]  # louder than two of the own sounds
    rows = {(row.protocol, row.metric): row for row in same_maps.confident_rows(own, other, BOXES)}
    assert {protocol for protocol, _ in rows} == {"avgn", "slavc", "slavc-fixed", "avgn-test"}
    metric = SoundLocalization("slavc", task="single")
    metric.update(torch.cat((own, other)) / 0.03, [*BOXES, [], [], []])
    expected, row = metric.compute(), rows["slavc", "MaxF1@0.5"]
    assert row.mixed == pytest.approx(float(expected["MaxF1@0.5"]))
    assert row.mixed < row.alone
    assert 0 < row.random <= 1
    assert row.random != row.mixed
