"""Captions extracted from a model's answer, and answers that are rejected."""

from __future__ import annotations

import json

import pytest
from avsl.captioning.answers import (
    MAX_ANSWER_LENGTH,
    MAX_CAPTION_LENGTH,
    START,
    AnswerError,
    Captions,
    in_order_of,
    parse_answer,
)
from avsl.captioning.prompt import EXAMPLES
from avsl.captioning.thoughts import opening_mark
from hypothesis import example, given
from hypothesis import strategies as st

CELLO, CHAIR = "an image of a cello", "an image of a chair"
ONE = {"foreground": [CELLO], "background": CHAIR}
DRAFT = '{"foreground": ["an image of a flute"], "background": "an image of a room"}'
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
        ("an image of: a cello", "a cello"),
        ("1. **An image of a cello**", "a cello"),
        ('"An image of a cello."', "a cello"),
        ("*An image of* a cello", "a cello"),
        ('"Stop" beside "Go"', '"Stop" beside "Go"'),
        ("The image features a cello", "a cello"),
        ("an image of a ce\u200bl\u00adlo\u202e", "a cello"),
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
        (json.dumps(ONE | {"background": "a \u0000 lamp"}), ["a"], "holds characters that are no text"),
        (json.dumps(ONE | {"background": "a \x1b[31m lamp"}), ["a"], "holds characters that are no text"),
        (json.dumps(ONE | {"background": "a \ud800 lamp"}), ["a"], "holds characters that are no text"),
        (json.dumps(ONE | {"background": "a caf\ufffd"}), ["a"], "holds characters that are no text"),
        (DRAFT[:-1] + ', "foreground": ["an image of a cello"]}', ["a"], "has a key twice"),
        (DRAFT[:-1] + ",}", ["a"], "no JSON object .* that can be read"),
        (json.dumps(ONE | {"background": "A cello."}), ["a"], "two of the captions are the same"),
        (json.dumps(ONE | {"foreground": [CELLO, CELLO]}), ["a", "b"], "two of the captions are the same"),
        ('{"foreground":' + "[" * 10_000, ["a"], "no JSON object"),
    ],
)
def test_what_is_no_answer(text: str, labels: list[str], reason: str) -> None:
    with pytest.raises(AnswerError, match=reason.replace("(", r"\(")):
        parse_answer(text, labels)


MARKS = [
    ("<think>", "</think>"),
    ("<THINK>\n", "\n</THINK >"),
    ('<think budget="9">', "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<｜begin▁of▁thinking｜>", "<｜end▁of▁thinking｜>"),
    ("<draft>", "</draft>"),
    ("<plan>", "</plan>"),
    ("<cot>", "</cot>"),
    ("<｜think｜>", "<｜/think｜>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>\n<|begin_of_solution|>"),
    ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    ("<start_working_out>", "<end_working_out>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("analysisWe need a cello.", "assistantfinal"),
    ("Here is my thought process: ", "Here is my response: "),
]


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_the_answer_follows_the_last_closing_mark_of_a_thought(opening: str, closing: str) -> None:
    good, wanted = json.dumps(ONE), Captions((CELLO,), CHAIR)
    assert parse_answer(f"{opening}First: {DRAFT} but wait{closing}\n{good}", ["cello"]) == wanted
    # The chat template holds the opening mark.
    assert parse_answer(f"First: {DRAFT} but wait{closing}\n{good}", ["cello"]) == wanted
    assert parse_answer(f"{opening}a{opening}b{DRAFT}{closing}{DRAFT}{closing}{good}", ["cello"]) == wanted
    assert (
        parse_answer(f"{opening}{DRAFT}{closing}{opening}{DRAFT}{closing}\n```json\n{good}\n```", ["cello"]) == wanted
    )


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_an_unfinished_thought_is_no_answer(opening: str, closing: str) -> None:
    with pytest.raises(AnswerError, match="it is a thought without an end, no answer follows"):
        parse_answer(f"{opening}First: {DRAFT} but wait, the man", ["cello"])
    with pytest.raises(AnswerError, match="no JSON object"):
        parse_answer(f"{opening}First: {DRAFT}{closing}", ["cello"])


@pytest.mark.parametrize(("opening", "closing"), MARKS[:-2])
def test_an_unfinished_thought_after_a_finished_one_is_no_answer(opening: str, closing: str) -> None:
    with pytest.raises(AnswerError, match="it is a thought without an end"):
        parse_answer(f"{opening}a{closing}{DRAFT}{opening}{DRAFT}", ["cello"])


def test_the_mark_at_the_end_of_a_prompt() -> None:
    assert opening_mark("user: <think>no</think><end>assistant: <think>\n") == "<think>"
    assert opening_mark("user: a<end>assistant: ") == ""
    assert opening_mark("user: <think>a<end>assistant: ") == ""
    assert opening_mark("user: a<end>assistant: <think>\n\n</think>\n\n") == ""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        *(
            (said, "says nothing")
            for said in ("None", "none.", "N/A", "n/a", "null", "unknown", '"None"', "(none)", "No")
        ),
        *((said, "says nothing") for said in ("Nothing", "not visible", "Not applicable", "None detected", "void")),
        *(
            (said, "is a placeholder")
            for said in ("<label>", "a man playing [instrument]", "{label}", "string", "label 1")
        ),
        *(
            (said, "is a placeholder")
            for said in ("your caption here", "foreground caption", "http://a.b/c.jpg", "an image of a")
        ),
        ("I'm sorry, I can't identify the cello", "can't be described"),
        ("I don’t see a cello", "can't be described"),
        ("As an AI language model, I cannot describe people", "can't be described"),
        ("The cello cannot be seen", "can't be described"),
        ("There is no background", "can't be described"),
        ("No other objects visible", "can't be described"),
        ("The image does not show a cello", "can't be described"),
        ("Unable to determine", "can't be described"),
        ("Sorry, no", "can't be described"),
        ("Please upload the image.", "can't be described"),
        ("It seems no image was attached", "can't be described"),
        ("No image provided", "can't be described"),
        ("I need more information", "can't be described"),
        ("I'm just an AI", "can't be described"),
        ("The object does not appear in the image", "can't be described"),
        ("Error: image could not be loaded", "can't be described"),
        ("a cello that is not visible", "can't be described"),
        ("một người đàn ông chơi đàn cello", "not in English"),
        ("une image d'un homme jouant du violoncelle", "not in English"),
        ("le violoncelle et le piano", "not in English"),
        ("ein Mann spielt Cello", "not in English"),
        ("Ich kann das nicht beschreiben", "not in English"),
        ("un hombre tocando el violonchelo", "not in English"),
        ("un uomo che suona il violoncello", "not in English"),
        ("um homem tocando violoncelo", "not in English"),
        ("een man speelt cello", "not in English"),
        ("mężczyzna gra na wiolonczeli", "not in English"),
        ("человек играет на виолончели", "not in English"),
        ("一个男人在拉大提琴", "not in English"),
        ("男", "not in English"),
        ("チェロを弾く男性", "not in English"),
    ],
)
@pytest.mark.parametrize("start", ["", "an image of "])
def test_what_describes_nothing_is_no_caption(said: str, reason: str, start: str) -> None:
    for answer in (ONE | {"foreground": [start + said]}, ONE | {"background": start + said}):
        with pytest.raises(AnswerError, match=f"^the caption .* {reason}$|^the caption .* something {reason}$"):
            parse_answer(json.dumps(answer), ["cello"])


@pytest.mark.parametrize(
    "said",
    [
        *(caption.removeprefix(START) for e in EXAMPLES for caption in (*e.foreground, e.background)),
        "the Los Angeles skyline",
        "a café table, a djembe, and chairs",
        "a van",
        "the Cirque du Soleil stage",
        "a no parking sign",
        "a silent trumpet on a wall",
        "an empty room",
        "a bar",
        "the MIT building",
        "an erhu (二胡) and its player",
        "a man whose face is not visible, behind a drum",
        "a thinking man",
        "a sorry-looking dog",
        'a sign that reads "Sorry, we are closed"',
        "a horse refusing a jump",
        "a pípá",
        "a cajón and a güiro",
        "a crème brûlée",
        "a guqin player in San José de los Cabos",
        'a banner reading "С днём рождения"',
        'the book "El amor en los tiempos del cólera"',
        "a photo frame",
        "a frame",
        "an I-beam",
        "someone",
        "guitar",
    ],
)
def test_unusual_captions(said: str) -> None:
    assert parse_answer(json.dumps(ONE | {"foreground": [said]}), ["cello"]).foreground == (START + said,)


class CountingDecoder(json.JSONDecoder):
    read = 0

    def raw_decode(self, s: str, idx: int = 0):
        try:
            return super().raw_decode(s, idx)
        except json.JSONDecodeError as error:
            CountingDecoder.read += error.pos - idx
            raise


@pytest.mark.parametrize("piece", ["{", '{"', '{"a', "[{", '{"a":', '{"a": [1], ', '{"a":' * 50 + "x", '\\{"', "{}{"])
def test_the_search_for_an_object_is_linear(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the characters that are decoded in vain. Without a bound, they grow with the square of the length."""
    monkeypatch.setattr(json, "JSONDecoder", CountingDecoder)
    for length in (5_000, MAX_ANSWER_LENGTH):
        CountingDecoder.read = 0
        with pytest.raises(AnswerError, match=r"no JSON object|too many braces"):
            parse_answer((piece * length)[:length], ["cello"])
        assert CountingDecoder.read <= 21 * MAX_ANSWER_LENGTH


def test_long_thoughts_may_come_before_the_answer() -> None:
    assert parse_answer(f"<think>{'x' * 500_000}</think>{json.dumps(ONE)}", ["cello"]).background == CHAIR


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
