"""Caption features: encoded once, then centred and whitened."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import transformers
from avsl.text import MINILM, CaptionTable, TextProjection, encode_captions, encoder_path

CAPTIONS = ["an image of a person playing the cello", "an image of a silent cello", "an image of a chair"]


def crowded(count: int = 200, size: int = 12) -> torch.Tensor:
    """Correlated features of full rank, far from the origin."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(size, size, generator=generator)
    return torch.randn(count, size, generator=generator) @ mixing + 20


def test_whitening_centres_and_decorrelates() -> None:
    features = crowded()
    for out in (12, 5):
        projection = TextProjection(12, out)
        projection.fit(features, shrinkage=0.0)
        projected = projection(features)
        assert projected.shape == (200, out)
        torch.testing.assert_close(projected.mean(0), torch.zeros(out), atol=1e-3, rtol=0)
        torch.testing.assert_close(torch.cov(projected.T), torch.eye(out), atol=1e-3, rtol=0)


def test_shrinkage_keeps_directions_apart_by_their_variance() -> None:
    features = crowded()
    projection = TextProjection(12, 12)
    projection.fit(features, shrinkage=1.0)
    variances = torch.linalg.eigvalsh(torch.cov(features.T)).flip(0)
    expected = variances / (variances + variances.mean())
    torch.testing.assert_close(torch.cov(projection(features).T), expected.diag(), atol=1e-3, rtol=0)


def test_shrinkage_takes_fewer_captions_than_features() -> None:
    features = crowded(6)
    projection = TextProjection(12, 8)
    projection.fit(features, shrinkage=1.0)
    assert projection(features).isfinite().all()


def test_the_projection_is_kept_in_the_state() -> None:
    first, second = TextProjection(12, 5), TextProjection(12, 5)
    first.fit(crowded(), 1.0)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(crowded()), second(crowded()))


def test_more_outputs_than_features() -> None:
    with pytest.raises(ValueError, match=r"`embedding_dim` to be at most 12, the size of the caption features, .* 13"):
        TextProjection(12, 13)


def test_features_are_the_first_token_of_the_last_layer(bert: str, tmp_path: Path) -> None:
    features = encode_captions(CAPTIONS, bert, tmp_path, batch_size=2)
    model = transformers.AutoModel.from_pretrained(bert).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    for caption, feature in zip(CAPTIONS, features, strict=True):
        tokens = tokenizer(caption, return_tensors="pt")
        assert tokenizer.unk_token_id not in tokens["input_ids"]
        with torch.no_grad():
            torch.testing.assert_close(model(**tokens).last_hidden_state[0, 0], feature, atol=1e-5, rtol=0)


def test_the_second_call_reads_the_file(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = encode_captions(CAPTIONS, bert, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1

    def refuse(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", refuse)
    assert torch.equal(encode_captions(CAPTIONS, bert, tmp_path), features)
    with pytest.raises(AssertionError, match="the model was loaded"):
        encode_captions([*CAPTIONS, "an image of a flute"], bert, tmp_path)
    with pytest.raises(AssertionError, match="the model was loaded"):
        encode_captions(CAPTIONS, f"{bert}/", tmp_path)


def test_other_captions_are_kept_in_another_file(bert: str, tmp_path: Path) -> None:
    encode_captions(CAPTIONS, bert, tmp_path)
    other = encode_captions(CAPTIONS[::-1], bert, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    torch.testing.assert_close(other, encode_captions(CAPTIONS, bert, tmp_path).flip(0), atol=1e-5, rtol=0)


def test_a_table_holds_every_caption_once(bert: str, tmp_path: Path) -> None:
    table = CaptionTable.build([*CAPTIONS, *CAPTIONS], bert, tmp_path)
    assert table.features.shape == (3, 24)
    for caption in CAPTIONS:
        (alone,) = encode_captions([caption], bert, tmp_path)
        torch.testing.assert_close(table.features[table.rows[caption]], alone, atol=1e-5, rtol=0)


def test_minilm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Path(encoder_path(MINILM)) / "config.json").is_file()
    assert encoder_path("bert-base-uncased") == "bert-base-uncased"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sslosses\[examples\]'"):
        encoder_path(MINILM)
