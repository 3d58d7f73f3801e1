"""Generated files and values: a reader returns a value or raises its documented error, which names the place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avsl.config import Config
from avsl.data.folders import read_captions
from avsl.yaml_files import read_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inputs import annotations, training

from sslosses.annotations import AnnotationError, rasterize, read_music_duet, read_music_solo, read_vggss
from sslosses.metrics import SoundLocalization, protocols

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, 1e308, -2.9e16])
texts = st.text(max_size=5) | st.sampled_from(["../a", "a\x00", "\ud800", "a" * 300, "NaN", "file", "bbox"])
keys = st.sampled_from(
    ["file", "class", "bbox", "class_src1", "bbox_src1", "class_src2", "bbox_src2", "id", "foreground"]
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | texts, inner, max_size=6),
    max_leaves=12,
)


def assert_named(error: Exception, *parts: str) -> None:
    """The error has one of these parts. A UnicodeError is a ValueError too, but does not name the file."""
    assert not isinstance(error, UnicodeError)
    assert any(part in str(error) for part in parts), error


@pytest.mark.parametrize("read", [read_vggss, read_music_solo, read_music_duet])
@few
@given(value=values | st.lists(values, max_size=3))
def test_any_json_as_boxes(tmp_path: Path, read: Callable[[Path], Any], value: Any) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(value))
    try:
        for record in read(path):
            for boxes in record.boxes:
                assert rasterize(boxes, 4).shape == (4, 4)
    except AnnotationError as error:
        assert_named(error, str(path))


@few
@given(value=values)
def test_any_json_as_captions(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text(json.dumps(value) + "\n")
    try:
        for name, (foreground, background) in read_captions(path):
            texts = (name, *foreground, *([] if background is None else [background]))
            assert all(isinstance(text, str) and text.encode() is not None for text in texts)
    except ValueError as error:
        assert_named(error, str(path))


@few
@given(values=st.dictionaries(st.sampled_from(list(Config.__dataclass_fields__)), values, max_size=3))
def test_any_values_as_a_configuration(values: dict[str, Any]) -> None:
    try:
        config = Config.from_dict(values)
    except ValueError as error:
        assert_named(error, "Expected `")
    else:
        assert Config.from_dict(config.as_dict()) == config


@few
@given(text=st.text(st.sampled_from("ab:-[]{},&*#!|>?\"'\n 10.~%@"), max_size=40))
def test_any_text_as_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    try:
        assert all(isinstance(key, str) for key in read_yaml(path))
    except ValueError as error:
        assert_named(error, str(path))


FILES = annotations.FILES | {name: file for name, file in training.FILES.items() if "sound" not in name}


@pytest.mark.parametrize("name", FILES)
@settings(few, max_examples=25)
@given(data=st.data())
def test_any_bytes_instead_of_others(tmp_path: Path, name: str, data: st.DataObject) -> None:
    read, file, valid = FILES[name]
    start = data.draw(st.integers(0, len(valid)))
    end = data.draw(st.integers(start, min(start + 20, len(valid))))
    (tmp_path / file).write_bytes(valid[:start] + data.draw(st.binary(max_size=20)) + valid[end:])
    try:
        read(tmp_path / file)
    except (ValueError, OSError) as error:
        assert_named(error, file, "Expected `", "configuration key")


@few
@given(values)
def test_any_value_as_maps_or_truths(value: Any) -> None:
    """Only a tensor of maps is accepted, and a refused update does not change the metric."""
    metric = SoundLocalization(protocols.paper.replace(size=4))
    maps = torch.eye(4)[None, None]
    metric.update(maps, [[[(0, 0, 1, 1)]]])
    before = metric.compute()
    for arguments in ((value, [[[(0, 0, 1, 1)]]]), (maps, value), (maps, [value]), (maps, [[value]])):
        try:
            metric.update(*arguments)
        except (TypeError, ValueError) as error:
            assert_named(error, "Expected")
        else:
            metric = SoundLocalization(protocols.paper.replace(size=4))
            metric.update(maps, [[[(0, 0, 1, 1)]]])
    metric._computed = None
    assert {n: v.item() for n, v in metric.compute().items()} == {n: v.item() for n, v in before.items()}
