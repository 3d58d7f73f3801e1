"""What metrics say about the samples behind them: left out, with surplus maps, or without a pixel to find."""

import json
import warnings

import pytest
import torch
from torchmetrics import MetricCollection

from sslosses.metrics import (
    AUC,
    CAP,
    PIAP,
    CIoU,
    CountingAccuracy,
    Coverage,
    SoundLocalization,
    chance_levels,
    protocols,
)

SMALL = protocols.paper.replace(size=8, name="small")
TRUTHS = torch.zeros(5, 2, 8, 8, dtype=torch.bool)
TRUTHS[:, 0, :4] = TRUTHS[:, 1, 4:] = True
MAPS = [torch.rand(count, 4, 4, generator=torch.Generator().manual_seed(0)) for count in (2, 2, 0, 1, 0)]
WITHOUT = "2 of 5 samples have no map and are left out by protocol 'small'.* Coverage"


def filled(metric, maps=MAPS, truths=TRUTHS, **more):
    metric.update(maps, list(truths), **more)
    return metric


def silent(compute):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return compute()


@pytest.mark.parametrize("kind", [CAP, CIoU, AUC, PIAP])
def test_a_metric_that_leaves_out_samples_warns_once_per_compute(kind):
    metric = filled(kind(protocol=SMALL))
    for _ in range(2):
        with pytest.warns(UserWarning, match=WITHOUT) as caught:
            metric.compute()
        assert len(caught) == 1
        metric._computed = None
    filled(metric, MAPS[:1], TRUTHS[:1])
    with pytest.warns(UserWarning, match="2 of 6 samples"):
        metric.compute()
    silent(filled(kind(protocol=SMALL), MAPS[:2], TRUTHS[:2]).compute)


@pytest.mark.parametrize("method", ["compute", "result"])
def test_all_metrics_of_a_protocol_warn_once(method):
    with pytest.warns(UserWarning, match=WITHOUT) as caught:
        getattr(filled(SoundLocalization(SMALL)), method)()
    assert len(caught) == 1


def test_metrics_that_count_such_samples_do_not_warn():
    silent(filled(CountingAccuracy(SMALL)).compute)
    silent(filled(Coverage(SMALL)).compute)
    for name in ("lvs", "avgn", "tvsl", "clean"):
        silent(filled(SoundLocalization(protocols.get(name).replace(size=8))).compute)
    with pytest.warns(UserWarning, match="no map"):  # its mean is over samples with a map under every protocol
        filled(PIAP(protocols.clean.replace(size=8))).compute()


def test_coverage_is_the_share_of_samples_with_a_map():
    assert float(filled(Coverage(SMALL)).compute()) == 3 / 5
    assert float(filled(Coverage(protocols.lvs.replace(size=8))).compute()) == 3 / 5
    padded = torch.stack([torch.cat([m, torch.zeros(2 - len(m), 4, 4)]) for m in MAPS])
    valid = torch.tensor([[len(m) > 0, len(m) > 1] for m in MAPS])
    metric = Coverage(SMALL)
    metric.update(padded, TRUTHS, valid)
    assert float(metric.compute()) == 3 / 5
    collection = MetricCollection([CAP(SMALL), CIoU(protocol=SMALL), AUC(SMALL), Coverage(SMALL)], prefix="val/")
    filled(collection)
    filled(collection)
    with pytest.warns(UserWarning, match="4 of 10 samples"):
        values = collection.compute()
    assert float(values["val/Coverage"]) == 3 / 5
    reported = SMALL.replace(mixture_metrics=("CAP", "Coverage"))
    with pytest.warns(UserWarning, match="no map"):
        result = filled(SoundLocalization(reported), source_classes=[[0, 1]] * 5).result()
    assert result.metrics["Coverage"] == 3 / 5
    assert set(result.per_class["0"]) == {"CAP", "entries"}  # a sample's, not a source's


def test_every_form_of_a_result_shows_them():
    truths = TRUTHS.clone()
    truths[0, 1] = False
    with pytest.warns(UserWarning, match=WITHOUT):
        result = filled(SoundLocalization(SMALL), truths=truths).result(chance=chance_levels(truths, SMALL))
    assert "2 samples without map, 1 empty truths" in str(result)
    head, rule, row, *chance = result.to_markdown().splitlines()
    assert head.endswith("| AUC | entries | samples without map | empty truths |")
    assert row.endswith("| 6 | 2 of 5 | 1 |")
    assert rule == "|" + "---|" * 7
    assert [line.count("|") for line in chance] == [8] * 3
    assert all(line.endswith("| | | |") for line in chance)
    assert r"entries & samples without map & empty truths \\" in result.to_latex()
    assert r"& 6 & 2 of 5 & 1 \\" in result.to_latex()
    loaded = json.loads(result.to_json())
    assert loaded["counts"]["samples_without_map"] == 2
    assert loaded["notes"] == list(result.notes)
    assert len(result.notes) == 1


def test_a_complete_result_has_no_more_columns():
    result = silent(filled(SoundLocalization(SMALL), MAPS[:2], TRUTHS[:2]).result)
    assert result.notes == ()
    assert result.to_markdown().splitlines()[0] == "| small, mixtures | CAP | CIoU@0.3 | AUC | entries |"


def test_maps_beyond_the_number_of_sources_are_told_where_most_samples_have_them():
    picture = torch.rand(4, 3, 4, 4)  # three channels of a picture, saved as maps
    metric = SoundLocalization(SMALL)
    metric.update(picture, TRUTHS[:4, :1])
    with pytest.warns(UserWarning, match=r"4 of 4 samples have more maps than sources, such as 3 maps for 1 source"):
        metric.compute()
    counted = [torch.rand(count, 4, 4) for count in (3, 2, 5, 2)]  # a model that counts: wrong now and then
    silent(filled(SoundLocalization(SMALL), counted, TRUTHS[:4]).compute)
    counted[1] = counted[0]
    with pytest.warns(UserWarning, match="3 of 4 samples .* such as 5 maps for 2 source"):
        filled(SoundLocalization(SMALL), counted, TRUTHS[:4]).compute()
    silent(lambda: chance_levels(TRUTHS, SMALL, maps_per_sample=4))  # asked for


def test_ground_truth_without_a_pixel_is_told_where_it_is_left_out_or_where_most_of_it_is():
    as_corners = [[[(0.6, 0.5, 0.2, 0.3)], [(0.1, 0.1, 0.4, 0.5)]]] * 5  # x, y, width, height
    maps = torch.rand(5, 2, 4, 4)
    metric = SoundLocalization(SMALL)
    metric.update(maps, as_corners)
    with pytest.warns(
        UserWarning, match=r"5 of 10 sources have no pixel in their ground truth and count as 0.*corners"
    ):
        metric.compute()
    one = TRUTHS.clone()
    one[0, 0] = False
    silent(filled(SoundLocalization(SMALL), list(maps), one).compute)
    with pytest.warns(UserWarning, match="1 of 10 sources have no pixel .* are left out by protocol 'clean"):
        filled(SoundLocalization(protocols.clean.replace(size=8)), list(maps), one).compute()
    one[0, 1] = False
    with pytest.warns(UserWarning, match="2 of 10 sources have no pixel .* corners"):
        filled(CAP(SMALL), list(maps), one).compute()


def test_constant_maps_are_told_where_most_are():
    collapsed = torch.rand(5, 2, 4, 4)
    collapsed[:3] += 1e9  # float32 keeps no difference
    metric = SoundLocalization(SMALL)
    metric.update(collapsed, TRUTHS)
    with pytest.warns(UserWarning, match="6 of 10 maps have one value in all pixels"):
        metric.compute()
    some = torch.rand(5, 2, 4, 4)
    some[:2] = 0
    silent(filled(SoundLocalization(SMALL), list(some)).compute)
    unused = torch.zeros(5, 2, 4, 4)
    unused[:, 0] = torch.rand(5, 4, 4)
    metric = Coverage(SMALL)
    metric.update(unused, TRUTHS, torch.tensor([[True, False]] * 5))
    silent(metric.compute)


# Channels last


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("as_list", [True, False])
def test_maps_with_their_channels_last_are_refused(channels, as_list):
    maps = torch.rand(2, 14, 10, channels)
    metric = CAP(SMALL)
    with pytest.raises(ValueError, match=rf"\(M, h, w\), but got \(14, 10, {channels}\), .* channels last"):
        metric.update(list(maps) if as_list else maps, TRUTHS[:2])
    assert len(metric.tables()[1]) == 0


@pytest.mark.parametrize(("layout", "shape"), [("stacked", (14, 10, 1)), ("side-by-side", (14, 10, 2))])
def test_mixtures_with_their_channels_last_are_refused(layout, shape):
    with pytest.raises(ValueError, match="channels last"):
        CAP(SMALL, layout=layout).update(torch.rand(2, *shape), TRUTHS[:2])


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        *(("one", shape) for shape in ((1, 14, 3), (2, 14, 1), (5, 4, 4), (4, 1, 1), (3, 3, 4), (2, 7, 5))),
        *(("stacked", (4, 2, 1)), ("side-by-side", (4, 3, 6))),
    ],
)
def test_narrow_and_small_maps_are_scored(layout, shape):
    metric = CAP(SMALL, layout=layout)
    metric.update(torch.rand(2, *shape), TRUTHS[:2])
    assert len(metric.tables()[1]) == 2
