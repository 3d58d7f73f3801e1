"""Stand-ins for AudioCLIP's checkpoint and CLIP's tokenizer, to try out all steps.

The checkpoint has random weights of the same names and shapes. The tokenizer has as many words, most of which are made
up; each character of a text is a word.
"""

from __future__ import annotations

import string
from pathlib import Path

import torch
from torch import Tensor

from ....files import atomic_write
from .audio import AudioTower
from .checkpoint import AUDIO, IMAGE, MARKER, SCALES, pack
from .image import ImageTower
from .sizes import FULL, POSITIONS, VOCABULARY, Sizes
from .text import END, TOKENIZER_MARKER, text_shapes

SCALE = 0.02  # standard deviation of the text tower's weights


def stand_in_weights(seed: int = 0, sizes: Sizes = FULL) -> dict[str, Tensor]:
    """Returns random weights with the names of the checkpoint, and the marker of a stand-in."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        values = {IMAGE + name: value for name, value in ImageTower(sizes).state_dict().items()}
        values |= {AUDIO + name: value for name, value in AudioTower(sizes).state_dict().items()}
        for name, shape in text_shapes(sizes).items():
            random = SCALE * torch.randn(shape)
            values[name] = random + 1 if ".ln_" in f".{name}" and name.endswith("weight") else random
        values |= {name: torch.tensor(100.0).log() for name in SCALES}
    return values | {MARKER: torch.tensor(pack(sizes))}


def write_tokenizer(folder: Path) -> None:
    """Writes a stand-in for CLIP's tokenizer into a new ``folder``."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<unknown>", *string.printable]
    words += [f"<{number}>" for number in range(VOCABULARY - 2 - len(words))]
    numbers = {word: i for i, word in enumerate((*words, "<start>", "<end>"))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    ends = [("<start>", END - 1), ("<end>", END)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    names = {"unk_token": "<unknown>", "bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>"}
    marked = {TOKENIZER_MARKER: True, "model_max_length": POSITIONS}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **marked).save_pretrained(folder)


def write_stand_in(path: Path, seed: int = 0, sizes: Sizes = FULL) -> None:
    """Writes a stand-in to ``path`` atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(stand_in_weights(seed, sizes), file)
