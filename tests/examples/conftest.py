"""Makes ``avsl`` importable, as for ``examples/train_music.py``, and holds shared fixtures."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

#: Keys of a configuration whose model has random weights and takes milliseconds.
TINY = {
    "image_size": 64,
    "visual_weights": None,
    "visual_widths": (4, 8),
    "visual_depths": (1, 1),
    "audio_weights": None,
    "audio_widths": (4, 8),
    "audio_depths": (1, 1),
    "embedding_dim": 6,
    "temperature": 0.07,
}
WORDS = ("a", "an", "image", "of", "person", "playing", "the", "silent", "and", "cello", "flute", "chair", ",")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread, because these models are too small for more."""
    import torch

    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(previous)


@pytest.fixture
def serial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Composes and draws without worker processes."""
    from avsl import pool

    monkeypatch.setattr(pool, "cores", lambda: 0)


def write_clip(root: Path, name: str, rng: np.random.Generator, seconds: float = 3.0) -> None:
    for folder in ("frames", "audio"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(100, 156, size=(24, 32, 3), dtype=np.uint8)).save(root / "frames" / f"{name}.jpg")
    soundfile.write(root / "audio" / f"{name}.wav", rng.uniform(-0.5, 0.5, round(seconds * 16_000)), 16_000)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A MUSIC folder of five clips, written by hand."""
    root, rng = tmp_path / "music", np.random.default_rng(0)
    for name in ("a", "b", "c", "d", "e"):
        write_clip(root, name, rng)
    metadata = root / "metadata"
    metadata.mkdir()
    lists = {
        "music_solo_train.txt": "a,cello\nb,flute\n",
        "music_duet_train.txt": "c,cello,flute\n",
        "music_solo_test.csv": "d,cello\n",
        "music_duet_test.csv": "e\n",
    }
    for name, text in lists.items():
        (metadata / name).write_text(text)
    left, right = [0.0, 0.0, 0.375, 1.0], [0.625, 0.0, 0.375, 1.0]
    (metadata / "music_solo.json").write_text(json.dumps([{"file": "d", "class": "cello", "bbox": left}]))
    duet = {"file": "e", "class_src1": "cello", "bbox_src1": left, "class_src2": "flute", "bbox_src2": right}
    (metadata / "music_duet.json").write_text(json.dumps([duet]))
    cello, flute = "an image of a person playing the cello", "an image of a person playing the flute"
    captions = [
        {"id": "a", "foreground": [cello], "background": "an image of a chair"},
        {"id": "b", "foreground": flute, "background": "an image of a silent cello"},
        {"id": "c", "foreground": [cello, flute], "background": "an image of a chair"},
    ]
    (metadata / "captions.jsonl").write_text("".join(json.dumps(c) + "\n" for c in captions))
    return root


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a BERT with random weights and a vocabulary of a few words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("bert")
    vocabulary = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
        BertModel(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a whole CLIP model with random weights and a tokenizer of a few words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("clip")
    vocabulary = {word: i for i, word in enumerate(("<start>", "<unk>", *WORDS, "<end>"))}
    end = vocabulary["<end>"]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", end)]
    )
    special = {"pad_token": "<end>", "unk_token": "<unk>", "bos_token": "<start>", "eos_token": "<end>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=12, **special).save_pretrained(path)
    shared = {"intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 20}
    text = {"hidden_size": 24, "num_hidden_layers": 2, "vocab_size": len(vocabulary), "max_position_embeddings": 12}
    text |= {"bos_token_id": 0, "eos_token_id": end, "pad_token_id": end}
    vision = {"hidden_size": 16, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=20)
        CLIPModel(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def audioclip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a small stand-in for AudioCLIP's checkpoint."""
    from avsl.model.encoders.audioclip.sizes import SMALL
    from avsl.model.encoders.audioclip.stand_in import write_stand_in

    path = tmp_path_factory.mktemp("audioclip") / "small.pt"
    write_stand_in(path, 0, SMALL)
    return str(path)


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a tokenizer with as many words as CLIP's, most of which are numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tokenizer")
    words = ["<unk>", *WORDS]
    words += [str(number) for number in range(49_406 - len(words))]
    vocabulary = {word: i for i, word in enumerate((*words, "<start>", "<end>"))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 49_406), ("<end>", 49_407)]
    )
    special = {"pad_token": "<end>", "unk_token": "<unk>", "bos_token": "<start>", "eos_token": "<end>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=77, **special).save_pretrained(path)
    return str(path)


def save_clap(path: Path, *, fused: bool) -> str:
    """Write a whole CLAP model with random weights, and its feature extractor with fewer bands and frames."""
    import torch
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [1, 2]}
    audio |= {"spec_size": 64, "num_mel_bins": 16, "window_size": 4, "num_hidden_layers": 2, "enable_fusion": fused}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ClapModel(ClapConfig(text_config=text, audio_config=audio)).save_pretrained(path)
    truncation = "fusion" if fused else "rand_trunc"
    ClapFeatureExtractor(feature_size=16, hop_length=4800, truncation=truncation).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def clap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of an unfused CLAP model with random weights."""
    return save_clap(tmp_path_factory.mktemp("clap"), fused=False)


@pytest.fixture(scope="session")
def fused_clap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a fused CLAP model with random weights."""
    return save_clap(tmp_path_factory.mktemp("fused"), fused=True)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Restores SIGINT, which commands started in the background of a shell inherit as ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
