"""AudioCLIP's text tower against a plain reference, its tokenizer, and the cache of its vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from avsl.commands.audioclip_stand_in import main
from avsl.model.caption_features import CaptionTable, encode_captions
from avsl.model.encoders import text as text_encoders
from avsl.model.encoders.audioclip.sizes import SMALL
from avsl.model.encoders.audioclip.text import build_text_tower
from avsl.model.encoders.text import TextEncoder

from .audioclip_references import text_embedding, varied_weights

CAPTIONS = ["an image of a person playing the cello", "a flute", "chair , cello , flute"]


def encoder(source: str, tokenizer: str) -> TextEncoder:
    return TextEncoder(source, tokenizer, allow_stand_in=True)


def test_the_tower_equals_its_reference() -> None:
    sizes = SMALL._replace(text_layers=3)
    values = varied_weights(sizes)
    tower = build_text_tower(sizes, values).double().eval()
    tower.load_state_dict({k: v.double() for k, v in tower.state_dict().items()})
    texts = torch.tensor([[49_406, 5, 900, 31_000, 49_407, 49_407, 49_407], [49_406, 1, 2, 3, 4, 5, 49_407]])
    with torch.no_grad():
        ours = tower(input_ids=texts, attention_mask=(texts.cumsum(1) > 0).long()).text_embeds
    for text, vector in zip(texts, ours, strict=True):
        torch.testing.assert_close(vector, text_embedding(text, values), atol=1e-6, rtol=1e-5)


def test_captions_are_encoded(audioclip: str, clip_tokenizer: str) -> None:
    made = encoder(audioclip, clip_tokenizer)
    vectors, full = made(CAPTIONS)
    assert (vectors.shape, full, made.limit) == ((3, 16), 0, 77)
    values = torch.load(audioclip, weights_only=True)
    for caption, vector in zip(CAPTIONS, vectors, strict=True):  # padding changes nothing
        tokens = torch.tensor(made.tokenizer(caption)["input_ids"])
        assert (int(tokens[0]), int(tokens[-1])) == (49_406, 49_407)
        torch.testing.assert_close(vector, text_embedding(tokens, values), atol=1e-5, rtol=1e-4)
    _, full = made(["cello " * 100])
    assert full == 1


def test_a_stand_in_has_to_be_asked_for(audioclip: str, clip_tokenizer: str) -> None:
    with pytest.raises(ValueError, match=r"`text_encoder` .* stand-in with random weights"):
        TextEncoder(audioclip, clip_tokenizer)


def test_a_stand_in_for_the_tokenizer(
    audioclip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells captions apart, and only smoke tests take it."""
    folder, file = tmp_path / "tokenizer", tmp_path / "stand-in.pt"
    line = [str(file), "--small", "--tokenizer", str(folder)]
    assert main(line) == 0
    assert f"{folder} holds a tokenizer with made-up words" in capsys.readouterr().out
    vectors, full = encoder(str(file), str(folder))(CAPTIONS)
    assert full == 0
    assert torch.pdist(vectors).min() > 1e-4
    assert encoder(str(file), str(folder))(["cello " * 20])[1] == 1
    file.unlink()
    with pytest.raises(SystemExit):
        main(line)
    assert "Expected `--tokenizer` to be a new folder" in capsys.readouterr().err
    assert not file.exists()
    checkpoint = text_encoders.read_checkpoint("text_encoder", audioclip, allow_stand_in=True)
    monkeypatch.setattr(text_encoders, "read_checkpoint", lambda *_, **__: checkpoint)  # as if the weights were real
    with pytest.raises(ValueError, match=r"`tokenizer` to be CLIP's, but '.*' is a stand-in with made-up words"):
        TextEncoder("own.pt", str(folder))


def test_a_checkpoint_can_have_any_suffix(audioclip: str, clip_tokenizer: str, tmp_path: Path) -> None:
    other = tmp_path / "weights.bin"
    other.write_bytes(Path(audioclip).read_bytes())
    vectors, _ = encoder(str(other), clip_tokenizer)(CAPTIONS)
    torch.testing.assert_close(vectors, encoder(audioclip, clip_tokenizer)(CAPTIONS)[0])


def test_tokenizers_that_are_not_clips(audioclip: str, bert: str, clip: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`tokenizer` to hold a tokenizer, but .* has none of tokenizer\.json"):
        encoder(audioclip, str(tmp_path))
    with pytest.raises(ValueError, match=r"`tokenizer` to be CLIP's, with 49408 words, .* has 17, and number None"):
        encoder(audioclip, bert)
    with pytest.raises(ValueError, match=r"`tokenizer` to be CLIP's, .* has 16, and number 15 for the end"):
        encoder(audioclip, clip)


def test_a_tokenizer_that_can_not_be_loaded(audioclip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match=r"`tokenizer` '.*nowhere' can't be loaded"):
        encoder(audioclip, str(tmp_path / "nowhere"))


def test_vectors_are_kept_by_file_and_tokenizer(
    audioclip: str, clip_tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    call = TextEncoder.__call__
    monkeypatch.setattr(TextEncoder, "__call__", lambda self, c: (calls.append(len(c)), call(self, c))[1])
    own = tmp_path / "own.pt"
    own.write_bytes(Path(audioclip).read_bytes())
    options = {"tokenizer": clip_tokenizer, "allow_stand_in": True}
    table = CaptionTable.build(CAPTIONS, str(own), tmp_path / "cache", **options)
    (alone,), _ = encoder(str(own), clip_tokenizer)(["a flute"])
    torch.testing.assert_close(table.features[table.rows["a flute"]], alone)
    calls.clear()
    encode_captions(CAPTIONS, str(own), tmp_path / "cache", **options)
    assert calls == []
    vocabulary = tmp_path / "tokenizer"
    vocabulary.mkdir()
    for file in Path(clip_tokenizer).iterdir():
        (vocabulary / file.name).write_bytes(file.read_bytes())
    encode_captions(CAPTIONS, str(own), tmp_path / "cache", **options | {"tokenizer": str(vocabulary)})
    assert calls == [3]
    own.write_bytes(own.read_bytes())  # another time
    encode_captions(CAPTIONS, str(own), tmp_path / "cache", **options)
    assert calls == [3, 3]
