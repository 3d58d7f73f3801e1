"""The prompt: the parts of the paper's prompt, in their order."""

from __future__ import annotations

import json

import pytest
from avsl.captioning import prompt
from avsl.captioning.answers import parse_answer
from avsl.captioning.prompt import EXAMPLES, build_prompt, messages, prompt_hash


def test_parts_in_their_order() -> None:
    text = build_prompt(["cello", "flute"])
    parts = ["What to do:", "1. Foreground", "2. Background", "3. Say only", "Answer format:", "JSON", "an image of"]
    parts += [
        "Examples:",
        *(f"({i}) {e.scenario}" for i, e in enumerate(EXAMPLES, 1)),
        "Now answer",
        '["cello", "flute"]',
    ]
    places = [text.index(part) for part in parts[:7]] + [text.rindex(part) for part in parts[7:]]
    assert places == sorted(places)


def test_the_three_scenarios() -> None:
    assert [len(e.labels) for e in EXAMPLES] == [1, 1, 2]
    assert all(e.scenario.count("sound") == 1 for e in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_has_the_form_that_is_asked_for(
    example: prompt.WorkedExample, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert example.answer in build_prompt(["x"])
    with pytest.raises(ValueError, match="repeats an example"):
        parse_answer(example.answer, example.labels)
    monkeypatch.setattr("avsl.captioning.answers.EXAMPLES", ())
    captions = parse_answer(example.answer, example.labels)
    assert (captions.foreground, captions.background) == (example.foreground, example.background)


@pytest.mark.parametrize(
    ("labels", "said"), [(["a"], "1 foreground caption and"), (["a"] * 3, "3 foreground captions")]
)
def test_the_number_of_captions(labels: list[str], said: str) -> None:
    assert said in build_prompt(labels).splitlines()[-1]


def test_labels_are_words_and_keep_their_commas() -> None:
    last = build_prompt(["acoustic_guitar", "race car, auto racing"]).rsplit("labels ", 1)[1].splitlines()[0]
    assert json.loads(last) == ["acoustic guitar", "race car, auto racing"]


def test_a_complaint() -> None:
    assert "could not be used: it was empty." in build_prompt(["a"], "it was empty")
    assert "could not be used" not in build_prompt(["a"])


def test_messages() -> None:
    image = {"type": "image"}
    assert messages("text", image) == [{"role": "user", "content": [image, {"type": "text", "text": "text"}]}]


def test_the_hash_is_of_the_whole_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompt_hash()
    assert before == prompt_hash()
    monkeypatch.setattr(prompt, "EXAMPLES", EXAMPLES[:2])
    fewer = prompt_hash()
    monkeypatch.setattr(prompt, "_INSTRUCTIONS", prompt._INSTRUCTIONS + " ")
    assert len({before, fewer, prompt_hash()}) == 3
