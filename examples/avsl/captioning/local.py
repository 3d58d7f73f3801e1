"""A multimodal model on this machine, run with transformers: InternVL, Qwen2-VL, LLaVA-NeXT and similar models."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.utils import is_torchvision_available

from .backend import Answer, Completion, Generation, Question
from .faults import FrameError, read_frame
from .frames import load_frame
from .prompt import messages
from .thoughts import opening_mark


class LocalModel:
    """A local model that answers questions in batches.

    Args:
        name: hub name or folder of a model that ``AutoModelForImageTextToText`` can load. No code from the hub is run.
        generation: lengths and temperature.
        batch_size: number of questions answered together.
        device: torch device; ``"auto"`` uses CUDA if available.
        dtype: name of a torch dtype; ``"auto"`` uses the dtype of the checkpoint.
    """

    def __init__(
        self, name: str, generation: Generation, *, batch_size: int = 8, device: str = "auto", dtype: str = "auto"
    ) -> None:
        self.generation, self.batch_size = generation, batch_size
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.processor = load_processor(name)
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "left"  # so that all answers of a batch start at the same position
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype).to(self.device).eval()

    def answers(self, next_question: Callable[[], Question | None]) -> Generator[Answer, None, None]:
        while batch := _next_batch(self.batch_size, next_question):
            frames, readable = [], []
            for question in batch:
                try:
                    frames.append(read_frame(load_frame, question.clip.frame, self.generation.longest_side))
                    readable.append(question)
                except FrameError as error:
                    yield Answer(question, error=str(error), asked=False)
            # A call of `generate` has a single temperature.
            temperatures = [self.generation.temperature_of(q) or 0.0 for q in readable]
            for temperature in sorted(set(temperatures)):
                chosen = [i for i, t in enumerate(temperatures) if t == temperature]
                said = self.generate([frames[i] for i in chosen], [readable[i].text for i in chosen], temperature)
                yield from (Answer(readable[i], *completion) for i, completion in zip(chosen, said, strict=True))

    @torch.inference_mode()
    def generate(
        self, frames: Sequence[Image.Image], prompts: Sequence[str], temperature: float = 0.0
    ) -> list[Completion]:
        """Generates one answer per frame and prompt; greedy at temperature 0."""
        chats = [
            self.processor.apply_chat_template(messages(p, {"type": "image"}), add_generation_prompt=True)
            for p in prompts
        ]
        tokenizer = self.processor.tokenizer
        # Some chat templates include the beginning-of-sequence token, others leave it to the tokenizer.
        has_bos = tokenizer.bos_token is not None and chats[0].startswith(tokenizer.bos_token)
        inputs = self.processor(
            images=[[frame] for frame in frames],
            text=chats,
            padding=True,
            add_special_tokens=not has_bos,
            return_tensors="pt",
        ).to(self.device, self.model.dtype)
        try:
            tokens = self.model.generate(**inputs, generation_config=self._settings(temperature))
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"{len(frames)} frames per batch do not fit into memory: lower --batch-size ({error})"
            ) from error
        answers = tokens[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._completion(chat, answer) for chat, answer in zip(chats, answers, strict=True)]

    def _completion(self, chat: str, tokens: Sequence[int]) -> Completion:
        """The answer to ``chat``. Special tokens stay in the text, because thoughts can be marked by them."""
        settings = self._settings(0.0)
        ends = settings.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        end = next((i for i, token in enumerate(tokens) if token in ends), None)
        padding = {settings.pad_token_id, settings.bos_token_id}
        text = self.processor.tokenizer.decode([token for token in tokens[:end] if token not in padding])
        problem = f"it was cut off after {len(tokens)} tokens, which --max-tokens raises" if end is None else ""
        # The template can begin a thought, whose mark is then in the question.
        return Completion(opening_mark(chat) + text, problem)

    def _settings(self, temperature: float) -> GenerationConfig:
        defaults = self.model.generation_config
        # Settings left out here would come from the model's own configuration, where top_k can be 1.
        sampling: dict[str, Any] = {"temperature": temperature, "top_k": 50, "top_p": 1.0} if temperature else {}
        return GenerationConfig(
            max_new_tokens=self.generation.max_tokens,
            bos_token_id=defaults.bos_token_id,
            eos_token_id=defaults.eos_token_id or self.processor.tokenizer.eos_token_id,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            do_sample=bool(temperature),
            **sampling,
        )


def _next_batch(size: int, next_question: Callable[[], Question | None]) -> list[Question]:
    batch: list[Question] = []
    while len(batch) < size and (question := next_question()) is not None:
        batch.append(question)
    return batch


def load_processor(name: str) -> Any:
    """Loads the processor of a model, without its video part if torchvision is not installed.

    All video processors of transformers need torchvision, so the processors of InternVL and Qwen2-VL cannot be built
    without it. Frames only need their image processor, which falls back to PIL.

    Raises:
        ModuleNotFoundError: if the model needs torchvision for images, too.
    """
    if is_torchvision_available():
        return AutoProcessor.from_pretrained(name)
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        processor_class = PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(name)), None)
        if processor_class is None or processor_class.get_attributes()[-1] != "video_processor":
            return AutoProcessor.from_pretrained(name)
        return _without_videos(processor_class).from_pretrained(name)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"The processor of {name} needs torchvision. Run: pip install torchvision, in the version for your torch"
        ) from error


def _without_videos(processor_class: Any) -> Any:
    """A subclass without the last part, the video processor, which then defaults to ``None``."""
    parts = processor_class.get_attributes()[:-1]
    return type(processor_class.__name__, (processor_class,), {"get_attributes": classmethod(lambda _: parts)})
