"""A multimodal model on this machine, through transformers: InternVL, Qwen2-VL, LLaVA-NeXT and their like."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.utils import is_torchvision_available

from .backend import Answer, Generation, Question
from .frames import load_frame
from .prompt import messages


class LocalModel:
    """Answers in batches.

    Args:
        name: hub name or folder of a model that ``AutoModelForImageTextToText`` loads. No code of the hub is run.
        generation: lengths and temperature.
        batch_size: questions answered at once.
        device: torch device; ``"auto"`` takes CUDA if there is any.
        dtype: name of a torch dtype; ``"auto"`` takes that of the checkpoint.
    """

    def __init__(
        self, name: str, generation: Generation, *, batch_size: int = 8, device: str = "auto", dtype: str = "auto"
    ) -> None:
        self.generation, self.batch_size = generation, batch_size
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.processor = load_processor(name)
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "left"  # so that all answers of a batch start at the same place
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype).to(self.device).eval()

    def answers(self, take: Callable[[], Question | None]) -> Generator[Answer, None, None]:
        while batch := _up_to(self.batch_size, take):
            frames, readable = [], []
            for question in batch:
                try:
                    frames.append(load_frame(question.clip.frame, self.generation.longest_side))
                    readable.append(question)
                except OSError as error:
                    yield Answer(question, error=f"the frame can't be read: {error}")
            # One call of generate has one temperature.
            for temperature in sorted({self.generation.temperature_of(q) for q in readable}):
                chosen = [i for i, q in enumerate(readable) if self.generation.temperature_of(q) == temperature]
                texts = self.generate([frames[i] for i in chosen], [readable[i].text for i in chosen], temperature)
                yield from (Answer(readable[i], text) for i, text in zip(chosen, texts, strict=True))

    @torch.inference_mode()
    def generate(self, frames: Sequence[Image.Image], prompts: Sequence[str], temperature: float = 0.0) -> list[str]:
        """The model's answers to one prompt a frame, greedy at temperature 0."""
        chats = [
            self.processor.apply_chat_template(messages(p, {"type": "image"}), add_generation_prompt=True)
            for p in prompts
        ]
        tokenizer = self.processor.tokenizer
        # Some chat templates write the token that begins a sequence, some leave it to the tokenizer.
        begun = tokenizer.bos_token is not None and chats[0].startswith(tokenizer.bos_token)
        inputs = self.processor(
            images=[[frame] for frame in frames],
            text=chats,
            padding=True,
            add_special_tokens=not begun,
            return_tensors="pt",
        ).to(self.device, self.model.dtype)
        try:
            tokens = self.model.generate(**inputs, generation_config=self._settings(temperature))
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"{len(frames)} frames at once are too many: lower --batch-size ({error})") from error
        return tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def _settings(self, temperature: float) -> GenerationConfig:
        own = self.model.generation_config
        # What is left out is taken from the model's own settings, where top_k can be 1.
        sampling: dict[str, Any] = {"temperature": temperature, "top_k": 50, "top_p": 1.0} if temperature else {}
        return GenerationConfig(
            max_new_tokens=self.generation.max_tokens,
            bos_token_id=own.bos_token_id,
            eos_token_id=own.eos_token_id or self.processor.tokenizer.eos_token_id,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            do_sample=bool(temperature),
            **sampling,
        )


def _up_to(count: int, take: Callable[[], Question | None]) -> list[Question]:
    batch: list[Question] = []
    while len(batch) < count and (question := take()) is not None:
        batch.append(question)
    return batch


def load_processor(name: str) -> Any:
    """The processor of a model; without torchvision, that of InternVL or Qwen2-VL without its part for videos.

    transformers has no video processor that does without torchvision, and so can't build these processors as they are,
    although frames go through their image processor, which falls back to PIL.

    Raises:
        ModuleNotFoundError: if the model's images need torchvision too.
    """
    if is_torchvision_available():
        return AutoProcessor.from_pretrained(name)
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        whole = PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(name)), None)
        if whole is None or whole.get_attributes()[-1] != "video_processor":
            return AutoProcessor.from_pretrained(name)
        return _without_videos(whole).from_pretrained(name)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"The processor of {name} needs torchvision. Run: pip install torchvision, in the version of your torch"
        ) from error


def _without_videos(whole: Any) -> Any:
    """The processor class ``whole`` with all its parts but the last, for videos, which defaults to ``None``."""
    parts = whole.get_attributes()[:-1]
    return type(whole.__name__, (whole,), {"get_attributes": classmethod(lambda _: parts)})
