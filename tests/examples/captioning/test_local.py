"""Tiny models of three architectures with random weights, from loading to the output file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from avsl.captioning import local
from avsl.captioning.answers import AnswerError, Captions, parse_answer
from avsl.captioning.backend import Answer, Generation, Question
from avsl.captioning.frames import load_frame, read_clips
from avsl.captioning.local import LocalModel
from avsl.commands.caption import main
from transformers import GenerationConfig, LogitsProcessor

FEW = Generation(max_tokens=12)


@pytest.fixture(scope="module")
def loaded(tiny_model: str) -> LocalModel:
    return LocalModel(tiny_model, FEW, device="cpu", dtype="float32")


@pytest.fixture
def model(loaded: LocalModel, monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    monkeypatch.setattr(loaded, "generation", FEW)
    return loaded


def questions(folder: Path) -> list[Question]:
    return [Question(clip) for clip in read_clips(folder)]


def test_answers_of_a_batch_are_those_of_single_frames(model: LocalModel, folder: Path) -> None:
    """Prompts and frames of different sizes are padded on the side where it doesn't matter."""
    asked = questions(folder)
    frames = [load_frame(q.clip.frame, 1024) for q in asked]
    together = model.generate(frames, [q.text for q in asked])
    alone = [model.generate([frame], [q.text])[0] for frame, q in zip(frames, asked, strict=True)]
    assert together == alone
    assert all(together)


def test_the_frame_reaches_the_model(model: LocalModel, folder: Path) -> None:
    logits: list[torch.Tensor] = []
    question = questions(folder)[0]
    frame = load_frame(question.clip.frame, 1024)
    hook = model.model.lm_head.register_forward_hook(lambda _, __, output: logits.append(output[:, -1]))
    model.generation = Generation(max_tokens=1)
    for picture in (frame, frame, frame.point(lambda v: 255 - v)):
        model.generate([picture], [question.text])
    hook.remove()
    same, again, other = logits
    assert torch.equal(same, again)
    assert not torch.allclose(same, other, atol=1e-5)


def test_the_first_answer_is_greedy_and_the_next_ones_are_not(
    model: LocalModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = questions(folder)[0]
    frame = load_frame(question.clip.frame, 1024)
    with monkeypatch.context() as own:
        for name, value in {"do_sample": True, "temperature": 9.0, "top_k": 50}.items():
            own.setattr(model.model.generation_config, name, value)
        greedy = {model.generate([frame], [question.text])[0] for _ in range(2)}
    sampled = {model.generate([frame], [question.text], 1.0)[0] for _ in range(3)}
    assert len(greedy) == 1
    assert len(sampled) == 3


def test_garbage_is_asked_again_and_recorded(
    tiny_model: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The second attempt samples, and a random model would end some answers before the limit by chance.
    monkeypatch.setattr(local, "GenerationConfig", partial(GenerationConfig, min_new_tokens=8))
    arguments = ["--data-root", str(folder), "--model", tiny_model, "--max-tokens", "8", "--batch-size", "3"]
    assert main([*arguments, "--device", "cpu", "--dtype", "float32", "--attempts", "2"]) == 1
    failed = [json.loads(line) for line in (folder / "metadata" / "captions.failed.jsonl").read_text().splitlines()]
    assert {entry["id"] for entry in failed} == {"s0", "s1", "s2", "d0"}
    assert all(entry["reason"].startswith("it was cut off after 8 tokens") and entry["answer"] for entry in failed)
    assert not (folder / "metadata" / "captions.jsonl").exists()


class Say(LogitsProcessor):
    """Forces an answer, token by token."""

    def __init__(self, tokens: list[int], prompt: int) -> None:
        self.tokens, self.prompt = tokens, prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.tokens[input_ids.shape[1] - self.prompt]] = 0
        return forced


def let_say(model: LocalModel, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the model answer every question with ``text``."""
    tokenizer = model.processor.tokenizer
    tokens = [*tokenizer(text).input_ids, tokenizer.eos_token_id]
    generate = model.model.generate
    monkeypatch.setattr(
        model.model,
        "generate",
        lambda **options: generate(**options, logits_processor=[Say(tokens, options["input_ids"].shape[1])]),
    )


def test_a_good_answer(model: LocalModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"foreground": ["an image of a cello"], "background": "an image of a chair"}
    model.generation = Generation(max_tokens=300)
    let_say(model, f"Here:\n```json\n{json.dumps(good)}\n```", monkeypatch)
    asked = iter(questions(folder)[:3])
    answers = list(model.answers(lambda: next(asked, None)))
    assert [a.question.clip.name for a in answers] == ["s0", "s1", "s2"]
    assert not any(a.error for a in answers)
    expected = Captions(("an image of a cello",), "an image of a chair")
    assert all(parse_answer(a.text or "", ["cello"]) == expected for a in answers)


DRAFT = '{"foreground": ["an image of a flute"], "background": "an image of a room"}'


@pytest.fixture(scope="module")
def one_model(tiny_models) -> LocalModel:
    return LocalModel(tiny_models("qwen2_vl"), FEW, device="cpu", dtype="float32")


@pytest.fixture
def answer_of(one_model: LocalModel, monkeypatch: pytest.MonkeyPatch):
    """The answer of a model that says ``text``, with a chat template that ends with ``opening``."""

    def make(folder: Path, text: str, opening: str = "", max_tokens: int = 400) -> Answer:
        monkeypatch.setattr(one_model, "generation", Generation(max_tokens=max_tokens))
        monkeypatch.setattr(one_model.processor, "chat_template", one_model.processor.chat_template + opening)
        let_say(one_model, text, monkeypatch)
        asked = iter(questions(folder)[:1])
        (answer,) = one_model.answers(lambda: next(asked, None))
        return answer

    return make


def test_an_answer_that_is_cut_off(answer_of, folder: Path) -> None:
    answer = answer_of(folder, f"First: {DRAFT} but wait, the man", max_tokens=20)
    assert answer.error == "it was cut off after 20 tokens, which --max-tokens raises"
    assert (answer.text or "").startswith("First: ")


def test_a_thought_that_the_template_opens_and_nothing_closes(answer_of, folder: Path) -> None:
    answer = answer_of(folder, f"First: {DRAFT} but wait.", "<think>\n")
    assert answer.error == ""
    with pytest.raises(AnswerError, match="a thought without an end"):
        parse_answer(answer.text or "", ["flute"])


def test_marks_that_are_special_tokens_stay_in_the_answer(answer_of, folder: Path) -> None:
    """<|vision_end|> is a special token of the tokenizer, as marks of thoughts can be."""
    assert answer_of(folder, f"a<|vision_end|>{DRAFT}").text == f"a<|vision_end|>{DRAFT}"


def test_an_unreadable_frame_does_not_stop_its_batch(model: LocalModel, folder: Path) -> None:
    (folder / "frames" / "s1.jpg").write_bytes(b"no picture")
    asked: Iterator[Question] = iter(questions(folder))
    answers = {a.question.clip.name: a for a in model.answers(lambda: next(asked, None))}
    assert "can't be read" in answers["s1"].error
    assert all(answers[name].text for name in ("s0", "s2", "d0"))


def test_with_torchvision_the_processor_is_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "is_torchvision_available", lambda: True)
    monkeypatch.setattr(local.AutoProcessor, "from_pretrained", lambda name: f"all of {name}")
    assert local.load_processor("x") == "all of x"


def test_a_model_that_needs_torchvision(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ImportError("requires the Torchvision library")

    monkeypatch.setattr(local, "is_torchvision_available", lambda: False)
    monkeypatch.setattr(local.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(ModuleNotFoundError, match=r"needs torchvision\. Run: pip install torchvision"):
        local.load_processor(tiny_model)
