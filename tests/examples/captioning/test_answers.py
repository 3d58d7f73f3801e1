"""Captions extracted from a model's answer, and answers that are rejected."""

from __future__ import annotations

import json

import pytest
from avsl.captioning.answers import MAX_CAPTION_LENGTH, START, AnswerError, Captions, in_order_of, parse_answer
from hypothesis import example, given
from hypothesis import strategies as st

CELLO, CHAIR = "an image of a cello", "an image of a chair"
ONE = {"foreground": [CELLO], "background": CHAIR}
WRAPPINGS = [
    "{}",
    "```json\n{}\n```",
    "```\n{}\n```\nI hope this helps.",
    "Sure! Here is the JSON object {{as asked}}:\n{}",
    '<think>It could be {{"foreground": ["x"], "background": "y"}}.</think>{}',
    "{0}\n\nAgain: {0}",
]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("indent", [None, 2])
def test_an_answer_among_other_words(wrapping: str, indent: int | None) -> None:
    assert parse_answer(wrapping.format(json.dumps(ONE, indent=indent)), ["cello"]) == Captions((CELLO,), CHAIR)


def test_a_single_foreground_may_be_a_string() -> None:
    assert parse_answer(json.dumps(ONE | {"foreground": CELLO}), ["cello"]) == Captions((CELLO,), CHAIR)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("an image of a cello", "a cello"),
        ("An image of a cello.", "a cello"),
        ("A cello", "a cello"),
        ("image of a cello", "a cello"),
        ("The picture shows a cello", "a cello"),
        ("A photo depicting\n a   cello.", "a cello"),
        ("TV and lamp", "TV and lamp"),
        ("imagery of saints", "imagery of saints"),
        ("a man holding an image of a cat", "a man holding an image of a cat"),
        ("an image of: a \u0000cello\ud800", "a cello"),
    ],
)
def test_captions_start_alike(said: str, kept: str) -> None:
    text = json.dumps(ONE | {"foreground": [said]})
    assert parse_answer(text, ["cello"]).foreground == (START + kept,)


@pytest.mark.parametrize(
    ("text", "labels", "reason"),
    [
        ("", ["a"], "no JSON object"),
        ("I can't see the image.", ["a"], "no JSON object"),
        (json.dumps(ONE)[:-1], ["a"], "no JSON object"),
        ('{"foreground": ["a"]}', ["a"], "no JSON object"),
        (json.dumps([CELLO, CHAIR]), ["a"], "no JSON object"),
        (json.dumps({"answer": ONE}), ["a"], "no JSON object"),
        (json.dumps(ONE) + json.dumps(ONE | {"background": "a lamp"}), ["a"], "2 different JSON objects"),
        (json.dumps(ONE), ["a", "b"], "1 captions, but 2 are wanted"),
        (json.dumps(ONE | {"foreground": CELLO}), ["a", "b"], "1 captions, but 2 are wanted"),
        (json.dumps(ONE | {"foreground": ["x", "y"]}), ["a"], "2 captions, but 1 are wanted"),
        (json.dumps(ONE | {"foreground": []}), ["a"], "0 captions, but 1 are wanted"),
        (json.dumps(ONE | {"foreground": [1]}), ["a"], '"foreground" is not a list of strings'),
        (json.dumps(ONE | {"foreground": {"cello": CELLO}}), ["a"], '"foreground" is not a list of strings'),
        (json.dumps(ONE | {"background": [CHAIR]}), ["a"], '"background" is not a string'),
        (json.dumps(ONE | {"background": None}), ["a"], '"background" is not a string'),
        (json.dumps(ONE | {"background": " "}), ["a"], "says nothing"),
        (json.dumps(ONE | {"background": "an image of ..."}), ["a"], "says nothing"),
        (json.dumps(ONE | {"background": "very " * 200}), ["a"], f"at most {MAX_CAPTION_LENGTH}"),
        (json.dumps(ONE | {"background": "A cello."}), ["a"], "two of the captions are the same"),
        (json.dumps(ONE | {"foreground": [CELLO, CELLO]}), ["a", "b"], "two of the captions are the same"),
        ('{"foreground":' + "[" * 100_000, ["a"], "no JSON object"),
    ],
)
def test_what_is_no_answer(text: str, labels: list[str], reason: str) -> None:
    with pytest.raises(AnswerError, match=reason.replace("(", r"\(")):
        parse_answer(text, labels)


def test_two_sources_of_one_class_may_look_alike() -> None:
    assert parse_answer(json.dumps(ONE | {"foreground": [CELLO, CELLO]}), ["cello", "cello"]).foreground == (
        CELLO,
        CELLO,
    )


@pytest.mark.parametrize(
    ("labels", "captions", "order"),
    [
        (("cello", "flute"), ("a flute", "a cello"), (1, 0)),
        (("cello", "flute"), ("a cello", "a flute"), (0, 1)),
        (("acoustic_guitar", "electric guitar"), ("electric guitars", "an acoustic guitar"), (1, 0)),
        (("a_x", "cello", "flute"), ("flutes", "someone", "a cello"), (1, 2, 0)),
        (("cello", "flute"), ("someone", "a cello"), (1, 0)),
        # Nothing tells which caption is whose: as the model gave them.
        (("cello", "flute"), ("someone", "another one"), (0, 1)),
        (("cello", "flute"), ("a flute beside a cello", "a cello beside a flute"), (0, 1)),
        (("accordion", "piano"), ("an accordion beside a piano", "someone"), (0, 1)),
        (("cello", "cello"), ("x", "a cello"), (0, 1)),
    ],
)
def test_captions_come_in_the_order_of_the_labels(labels, captions, order) -> None:
    assert in_order_of(labels, captions) == tuple(captions[i] for i in order)
    texts = [START + c for c in captions]
    answer = parse_answer(json.dumps({"foreground": texts, "background": CHAIR}), labels)
    assert answer.foreground == tuple(texts[i] for i in order)


words = st.text(min_size=1, max_size=30)
values = st.recursive(st.none() | st.integers() | words, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v))
garbage = st.text() | st.lists(
    st.sampled_from(['{"foreground": ', "[", "]", '"x"', ",", '"background": ', "}", "\\", "```"])
).map("".join)
nearly = st.fixed_dictionaries({"foreground": values | st.lists(words, max_size=3), "background": values | words})
answers = garbage | nearly.map(json.dumps) | st.tuples(garbage, nearly.map(json.dumps), garbage).map("".join)


@given(answers, st.lists(st.sampled_from(["cello", "acoustic_guitar", "x, y"]), min_size=1, max_size=3))
@example('{"foreground": "\\ud800 ...", "background": "İ"}', ["x"])
def test_any_words_give_captions_of_the_right_form_or_a_reason(text: str, labels: list[str]) -> None:
    try:
        captions = parse_answer(text, labels)
    except AnswerError:
        return
    assert len(captions.foreground) == len(labels)
    for caption in (*captions.foreground, captions.background):
        assert caption.startswith(START)
        assert len(caption) > len(START)
        assert caption.isprintable()
    again = json.dumps(captions._asdict())
    assert parse_answer(again, labels) == captions


@given(st.permutations(["cello", "flute", "tuba"]), st.permutations(["cello", "flute", "tuba"]))
def test_captions_that_name_their_labels_are_put_in_order(labels: list[str], said: list[str]) -> None:
    text = json.dumps({"foreground": [f"an image of the {s}" for s in said], "background": CHAIR})
    assert parse_answer(text, labels).foreground == tuple(f"an image of the {label}" for label in labels)
