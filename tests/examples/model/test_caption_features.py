"""Caption features: encoded once, then centered and whitened."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from avsl.model.caption_features import CaptionTable, TextProjection, encode_captions
from avsl.model.encoders.text import MINILM, TextEncoder, encoder_path
from safetensors.torch import load_file, save_file

EXAMPLES = Path(__file__).parents[3] / "examples"

CAPTIONS = ["an image of a person playing the cello", "an image of a silent cello", "an image of a chair"]


def crowded(count: int = 200, size: int = 12) -> torch.Tensor:
    """Correlated features of full rank, far from the origin."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(size, size, generator=generator)
    return torch.randn(count, size, generator=generator) @ mixing + 20


def test_whitening_centers_and_decorrelates() -> None:
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
    actual = torch.linalg.eigvalsh(torch.cov(projection(features).T)).flip(0)
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=0)
    projection = TextProjection(12, 9)
    projection.fit(features, shrinkage=1.0)
    torch.testing.assert_close(torch.cov(projection(features).T), expected[:9].diag(), atol=1e-3, rtol=0)


def test_captions_stay_in_the_space_of_the_text_encoder_if_no_dimension_is_dropped() -> None:
    """Before training, AudioCLIP's frames and sounds are in this space. Each is nearest to its own caption."""
    features = crowded(8)
    projection = TextProjection(12, 12)
    projection.fit(features, shrinkage=1.0)
    scene = features + 0.1 * torch.randn(8, 12, generator=torch.Generator().manual_seed(1))
    centered = features - features.mean(0)
    cosines = torch.nn.functional.cosine_similarity(projection(features), scene[:, None] - features.mean(0), dim=2)
    assert cosines.argmax(1).tolist() == list(range(8))
    assert (projection(features) * centered).sum(1).min() > 0
    narrow = TextProjection(12, 11)
    narrow.fit(features, shrinkage=1.0)  # 8 captions span 7 dimensions, so nothing is lost
    wanted, got = (y @ y.T for y in (narrow(features), projection(features)))
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)


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


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(transformers.PretrainedConfig, "get_config_dict", fail)
    with pytest.raises(OSError, match=r"no connection.*no folder 'bert'.*--text-encoder minilm.*HF_HUB_OFFLINE=1"):
        TextEncoder("bert")


def reject_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a text encoder was loaded")

    for loader in (transformers.AutoModel, transformers.AutoTokenizer, transformers.CLIPTextModelWithProjection):
        monkeypatch.setattr(loader, "from_pretrained", refuse)


def spy(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The batches that are encoded from here on."""
    batches: list[list[str]] = []
    call = TextEncoder.__call__
    monkeypatch.setattr(TextEncoder, "__call__", lambda self, c: (batches.append(list(c)), call(self, c))[1])
    return batches


def test_features_are_the_first_token_of_the_last_layer(bert: str, tmp_path: Path) -> None:
    features = encode_captions(CAPTIONS, bert, tmp_path, batch_size=2)
    model = transformers.AutoModel.from_pretrained(bert).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    for caption, feature in zip(CAPTIONS, features, strict=True):
        tokens = tokenizer(caption, return_tensors="pt")
        assert tokenizer.unk_token_id not in tokens["input_ids"]
        with torch.no_grad():
            torch.testing.assert_close(model(**tokens).last_hidden_state[0, 0], feature, atol=1e-5, rtol=0)


def test_clips_features_are_its_text_embeddings(clip: str, tmp_path: Path) -> None:
    features = encode_captions(CAPTIONS, clip, tmp_path / "cache", batch_size=2)
    model = transformers.CLIPModel.from_pretrained(clip)
    tokenizer = transformers.AutoTokenizer.from_pretrained(clip)
    for caption, feature in zip(CAPTIONS, features, strict=True):
        tokens = tokenizer(caption, return_tensors="pt")
        assert tokenizer.unk_token_id not in tokens["input_ids"]
        with torch.no_grad():
            state = model.text_model(input_ids=tokens["input_ids"]).last_hidden_state[0, -1]  # its end-of-text token
            torch.testing.assert_close(model.text_projection(state), feature, atol=1e-5, rtol=0)


@pytest.mark.parametrize("projected", [True, False])
def test_a_clip_text_tower_of_its_own(projected: bool, clip: str, tmp_path: Path) -> None:
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    kind.from_pretrained(clip).save_pretrained(tmp_path / "tower")
    transformers.AutoTokenizer.from_pretrained(clip).save_pretrained(tmp_path / "tower")
    features = encode_captions(CAPTIONS, str(tmp_path / "tower"), tmp_path)
    assert features.shape == (3, 20 if projected else 24)
    if not projected:
        features = features @ transformers.CLIPModel.from_pretrained(clip).text_projection.weight.T
    torch.testing.assert_close(features, encode_captions(CAPTIONS, clip, tmp_path), atol=1e-5, rtol=0)


def test_minilm_tells_captions_apart(tmp_path: Path) -> None:
    same, near, far = encode_captions(["a cello", "a violoncello", "a red lorry on a motorway"], MINILM, tmp_path)
    assert same.shape == (384,)
    assert torch.cosine_similarity(same, near, dim=0) > torch.cosine_similarity(same, far, dim=0)


def test_long_captions_are_cut(clip: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    long = "the cello , the flute , the chair , the cello , the flute"
    first, second = encode_captions([long, f"{long} , a silent person"], clip, tmp_path)
    assert torch.equal(first, second)
    assert "2 of 2 captions fill all 12 tokens of the text encoder" in caplog.text
    encode_captions(CAPTIONS[2:], clip, tmp_path)
    assert "of 1 captions" not in caplog.text


def test_the_second_call_reads_the_file(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = encode_captions(CAPTIONS, bert, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    reject_loading(monkeypatch)
    assert torch.equal(encode_captions(CAPTIONS, bert, tmp_path), features)
    assert torch.equal(encode_captions(CAPTIONS[::-1], bert, tmp_path), features.flip(0))
    with pytest.raises(AssertionError, match="a text encoder was loaded"):
        encode_captions([*CAPTIONS, "an image of a flute"], bert, tmp_path)
    with pytest.raises(AssertionError, match="a text encoder was loaded"):
        encode_captions(CAPTIONS, f"{bert}/", tmp_path)


def test_a_changed_caption_is_encoded_alone(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = encode_captions(CAPTIONS, bert, tmp_path)
    batches = spy(monkeypatch)
    after = encode_captions(["an image of a flute", *CAPTIONS[1:]], bert, tmp_path)
    assert batches == [["an image of a flute"]]
    assert torch.equal(after[1:], before[1:])
    assert not torch.equal(after[0], before[0])


def test_other_weights_under_the_same_path(bert: str, tmp_path: Path) -> None:
    path = tmp_path / "own"
    shutil.copytree(bert, path)
    before = encode_captions(CAPTIONS, str(path), tmp_path / "cache")
    model = transformers.BertModel.from_pretrained(path)
    with torch.no_grad():
        model.embeddings.LayerNorm.bias += 1
    model.save_pretrained(path)
    assert not torch.allclose(encode_captions(CAPTIONS, str(path), tmp_path / "cache"), before)


def test_batches_are_of_similar_length(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [f"an image of a chair{' and a chair' * (i * 7 % 10)}" for i in range(10)]
    batches = spy(monkeypatch)
    features = encode_captions([*captions, captions[0]], bert, tmp_path, batch_size=4)
    assert [len(b) for b in batches] == [4, 4, 2]
    lengths = [len(c) for b in batches for c in b]
    assert lengths == sorted(lengths, reverse=True)
    assert torch.equal(features[0], features[10])
    for caption, feature in zip(captions, features, strict=False):
        (alone,) = encode_captions([caption], bert, tmp_path / "other")
        torch.testing.assert_close(feature, alone, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_killed_run_is_resumed(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed in the third of five transactions: two are kept, the rest is encoded by the next run."""
    captions = [f"caption {i}" for i in range(20)]
    script = f"""
import os, sys
sys.path.insert(0, {str(EXAMPLES)!r})
from pathlib import Path
from avsl.model import caption_features as text
text.CHUNK, call, calls = 4, text.TextEncoder.__call__, []
def killed(self, batch):
    calls.append(batch)
    if len(calls) > 5:
        os._exit(9)
    return call(self, batch)
text.TextEncoder.__call__ = killed
text.encode_captions({captions!r}, {bert!r}, Path({str(tmp_path)!r}), batch_size=2)
"""
    assert subprocess.run([sys.executable, "-c", script], stderr=subprocess.DEVNULL).returncode == 9
    batches = spy(monkeypatch)
    features = encode_captions(captions, bert, tmp_path)
    assert sum(len(b) for b in batches) == 12
    assert features.shape == (20, 24)
    assert features.isfinite().all()


def test_a_damaged_cache(bert: str, tmp_path: Path) -> None:
    encode_captions(CAPTIONS, bert, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match=rf"{path.name} to hold caption features, .* delete it"):
        encode_captions(CAPTIONS, bert, tmp_path)


def test_no_captions(bert: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one caption"):
        encode_captions([], bert, tmp_path)


def test_what_is_no_text_encoder(bert: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`text_encoder` to be a folder .* there is no folder '.*nowhere'"):
        TextEncoder(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"`text_encoder` .* can't be loaded"):
        TextEncoder(str(tmp_path))
    transformers.BertModel.from_pretrained(bert).save_pretrained(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"`text_encoder` to hold a tokenizer, but .* tokenizer\.save_pretrained"
    ):
        TextEncoder(str(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("embeddings.LayerNorm.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"`text_encoder` to hold all weights, but .* lacks 1, embeddings\.LayerNorm"):
        TextEncoder(str(tmp_path))


def test_a_table_holds_every_caption_once(bert: str, tmp_path: Path) -> None:
    table = CaptionTable.build([*CAPTIONS, *CAPTIONS], bert, tmp_path)
    assert table.features.shape == (3, 24)
    for caption in CAPTIONS:
        (alone,) = encode_captions([caption], bert, tmp_path)
        torch.testing.assert_close(table.features[table.rows[caption]], alone, atol=1e-5, rtol=0)


def test_the_path_of_minilm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Path(encoder_path(MINILM)) / "config.json").is_file()
    assert encoder_path("bert-base-uncased") == "bert-base-uncased"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sslosses\[examples\]'"):
        encoder_path(MINILM)


def test_counts_of_words(tmp_path: Path) -> None:
    texts = ["an image of a cello", "a cello, an image of", "an image of a flute"]
    same, again, other = encode_captions(texts, "words", tmp_path)
    assert torch.equal(same, again)
    torch.testing.assert_close(same @ other, torch.tensor(4 / 5))
    assert same.shape == (512,)
