"""Every protocol against its slow loop, on generated cases and on the real annotations."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslosses.annotations import rasterize, read_music_duet, read_music_solo
from sslosses.metrics import SoundLocalization, protocols

sys.path.insert(0, str(Path(__file__).parent))
import reference

METADATA = os.environ.get("SSLOSSES_METADATA")

# Generated samples lack maps, have surplus ones, or ground truth without a pixel.
pytestmark = pytest.mark.filterwarnings("ignore:.* (samples|sources|maps) have :UserWarning")
PUBLISHED = ("lvs", "ez-vsl", "avgn", "tvsl", "clean")
# Integer maps and sides that are powers of two keep resized values exact in float64, so that the order of the pixels,
# on which everything depends, is the same in both; ties are then common.
SIZE = 8


def expected(name, samples, layout, size, single=False):
    if name == "avgn":
        return reference.avgn(samples, layout, size, single)
    return getattr(reference, name.replace("-", "_"))(samples, layout, size)


def assert_equal(result, wanted, tolerance=1e-6):
    shared = [name for name in result if name in wanted]
    assert "entries" in shared
    for name, value in result.items():
        if name in wanted:
            assert abs(float(value) - wanted[name]) <= tolerance, (name, float(value), wanted[name])
        else:
            counts = ("samples", "samples_without_map", "empty_truths", "samples_without_source")
            assert name in counts or torch.isnan(value), name


@st.composite
def a_truth(draw, size=SIZE):
    truth = np.zeros((size, size))
    for value in draw(st.sampled_from([(), (1.0,), (1.0,), (1.0, 1.0), (0.5, 0.5)])):
        top, bottom, start, end = (draw(st.integers(0, size)) for _ in range(4))
        truth[top:bottom, start:end] += value
    return truth.clip(0, 1)


@st.composite
def cases(draw, most_sources=3, layouts=("one", "stacked", "side-by-side"), size=SIZE, sides=(1, 2, 4, 8)):
    layout = draw(st.sampled_from(layouts))
    samples = []
    for _ in range(draw(st.integers(1, 4))):
        truths = [draw(a_truth(size)) for _ in range(draw(st.integers(1, most_sources)))]
        side = draw(st.sampled_from(sides))
        down = len(truths) if layout == "stacked" else 1
        across = len(truths) if layout == "side-by-side" else 1
        shape = (draw(st.integers(0, 4)), side * down, side * across)
        seed = draw(st.integers(0, 2**32 - 1))
        maps = np.random.default_rng(seed).integers(-3, 4, shape).astype(float)
        if len(maps) and draw(st.booleans()):
            maps[draw(st.integers(0, len(maps) - 1))] = draw(st.integers(-2, 2))
        if draw(st.booleans()):
            maps = maps.clip(max=0)  # most pixels at the maximum
        samples.append((maps, np.stack(truths)))
    return layout, samples


def tensors(samples, dtype=torch.float64):
    return [torch.tensor(m, dtype=dtype) for m, _ in samples], [torch.tensor(g, dtype=dtype) for _, g in samples]


def cases_of(name, **options):
    """With aligned corners it is the intervals between pixels that have to be powers of two."""
    if name == "ez-vsl":
        options |= {"layouts": ("one",), "size": 9, "sides": (1, 2, 3, 5, 9)}
    return options.get("size", SIZE), cases(**options)


@pytest.mark.parametrize("name", PUBLISHED)
def test_protocol_equals_its_loop(name):
    size, generated = cases_of(name)
    protocol = protocols.get(name).replace(size=size)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(generated)
    def check(case):
        layout, samples = case
        metric = SoundLocalization(protocol, layout=layout)
        metric.update(*tensors(samples[:1]))
        metric.update(*tensors(samples[1:]))
        assert_equal(metric.compute(), expected(name, samples, layout, size))

    check()


@pytest.mark.parametrize("name", PUBLISHED)
def test_protocol_on_single_sources_equals_its_loop(name):
    size, generated = cases_of(name, most_sources=1, layouts=("one",))
    protocol = protocols.get(name).replace(size=size)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(generated)
    def check(case):
        layout, samples = case
        metric = SoundLocalization(protocol, task="single", layout=layout)
        metric.update(*tensors(samples))
        assert_equal(metric.compute(), expected(name, samples, layout, size, single=True))

    check()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(), st.data())
def test_clean_with_classes_equals_its_loop(case, data):
    layout, samples = case
    ids = st.integers(-1, 2)
    classes = [
        tuple(data.draw(st.lists(ids, min_size=len(part), max_size=len(part))) for part in sample) for sample in samples
    ]
    metric = SoundLocalization(protocols.clean.replace(size=SIZE, threshold=0.25), layout=layout)
    metric.update(
        *tensors(samples), map_classes=[mine for mine, _ in classes], source_classes=[theirs for _, theirs in classes]
    )
    assert_equal(metric.compute(), reference.clean(samples, layout, SIZE, classes, threshold=0.25))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_clean_by_area_equals_its_loop(case):
    layout, samples = case
    metric = SoundLocalization(
        protocols.clean.replace(size=SIZE, binarization="area fraction", threshold=0.3), layout=layout
    )
    metric.update(*tensors(samples))
    assert_equal(metric.compute(), reference.clean(samples, layout, SIZE, area=0.3))


def test_ez_vsl_with_an_object_prior_equals_its_loop():
    generator = np.random.default_rng(0)
    samples, priors = [], generator.normal(size=(6, 5, 7))
    for _ in range(6):
        truth = (generator.random((1, 32, 32)) < 0.4).astype(float)
        samples.append((generator.normal(size=(1, 7, 7)), truth))
    protocol = protocols.ez_vsl.replace(size=32)
    metric = SoundLocalization(protocol, task="single")
    metric.update(*tensors(samples), priors=torch.tensor(priors))
    assert_equal(metric.compute(), reference.ez_vsl(samples, "one", 32, priors))
    with pytest.raises(ValueError, match="takes no object prior"):
        SoundLocalization("lvs").update(
            torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 224, 224), priors=torch.zeros(1, 2, 2)
        )


@pytest.mark.parametrize("layout", ["stacked", "side-by-side"])
def test_ez_vsl_on_several_frames_equals_its_loop(layout):
    generator = np.random.default_rng(4)
    samples = []
    for sources in (1, 2, 3):
        shape = (sources, 7 * sources, 7) if layout == "stacked" else (sources, 7, 7 * sources)
        samples.append((generator.normal(size=shape), (generator.random((sources, 32, 32)) < 0.4).astype(float)))
    metric = SoundLocalization(protocols.ez_vsl.replace(size=32), layout=layout)
    metric.update(*tensors(samples))
    assert_equal(metric.compute(), reference.ez_vsl(samples, layout, 32))


# Real annotations


def vggss(step):
    for entry in json.loads((Path(METADATA) / "vggss.json").read_text())[::step]:
        yield [entry["bbox"]]


def music(read, name, step):
    for record in list(read(Path(METADATA) / f"music_{name}.json"))[::step]:
        yield [list(boxes) for boxes in record.boxes]


def drawn(boxes):
    """Truncating, box by box, pixel by pixel as the published code slices."""
    truth = np.zeros((224, 224))
    for box in boxes:
        xmin, ymin, xmax, ymax = (max(int(224 * v), 0) for v in box)
        truth[ymin:ymax, xmin:xmax] = 1
    return truth


@pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("kind", ["vggss", "solo", "duet"])
def test_protocol_on_real_boxes_equals_its_loop(name, kind):
    generator = np.random.default_rng(1)
    if kind == "vggss":
        boxes = list(vggss(900))
    else:
        boxes = list(music(*{"solo": (read_music_solo, "solo", 400), "duet": (read_music_duet, "duet", 200)}[kind]))
    single = kind != "duet"
    # the side-by-side frames of T-VSL's and AVGN's duets; dyadic values keep the order of the pixels
    layout = "side-by-side" if kind == "duet" and name in ("avgn", "tvsl") else "one"
    samples = []
    for sources in boxes:
        width = 7 * (len(sources) if layout == "side-by-side" else 1)
        maps = generator.normal(size=(len(sources), 7, width))
        samples.append((maps, np.stack([drawn(source) for source in sources])))
    metric = SoundLocalization(name, task="single" if single else "mixtures", layout=layout)
    metric.update([torch.tensor(m) for m, _ in samples], boxes)
    assert_equal(metric.compute(), expected(name, samples, layout, 224, single))


# Boxes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-0.5, 1.5) for _ in range(4)]), max_size=3))
def test_boxes_and_masks_agree(boxes):
    maps = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    one, other = (SoundLocalization(protocols.noprior.replace(size=SIZE)) for _ in range(2))
    one.update(maps, [[boxes]])
    other.update(maps, rasterize(boxes, SIZE)[None, None])
    assert one.compute() == other.compute()


def test_avgn_adds_overlapping_boxes_in_mixtures_only():
    boxes = [(0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 0.75, 1.0)]
    maps = torch.arange(64.0, dtype=torch.float64).reshape(1, 1, 8, 8)
    added = np.stack([drawn_small(boxes[:1]) + drawn_small(boxes[1:])])
    once = np.stack([drawn_small(boxes)])
    for task, truth in (("mixtures", added), ("single", once)):
        metric = SoundLocalization(protocols.avgn.replace(size=SIZE), task=task)
        metric.update(maps, [[boxes]])
        assert_equal(metric.compute(), reference.avgn([(maps[0].numpy(), truth)], "one", SIZE, task == "single"))


def drawn_small(boxes):
    return rasterize(boxes, SIZE).numpy().astype(float)


@pytest.mark.parametrize("boxes", [[(0.0, 0.0, 1.0)], [(0.0, 0.0, float("nan"), 1.0)]])
def test_wrong_boxes_are_refused(boxes):
    with pytest.raises(ValueError, match=r"`truths\[0\]` to hold .* 4 finite numbers"):
        SoundLocalization("lvs").update(torch.zeros(1, 1, 2, 2), [[boxes]])
