"""The check of the built site finds each kind of fault."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "check_html.py"


@pytest.fixture(scope="module")
def check_html():
    spec = importlib.util.spec_from_file_location("check_html", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults(check_html, site: Path, body: str) -> list[str]:
    (site / "other.html").write_text("<article><h2 id='there'>There</h2></article>", encoding="utf-8")
    (site / "page.html").write_text(f"<article>{body}</article>", encoding="utf-8")
    return check_html.check(site).get("page.html", [])


FAULTY = {
    "<script src='https://example.org/a.js'></script>": "loads from a network: https://example.org/a.js",
    "<link rel='stylesheet' href='//example.org/a.css'>": "loads from a network: //example.org/a.css",
    "<img alt='a map' src='missing.png'>": "file is missing: missing.png",
    "<img src='other.html'>": "picture without text: other.html",
    r"<p>the loss \(\mathcal{L}\)</p>": r"LaTeX in the text: \(\mathcal{L}\)",
    "<p>a price of $x$</p>": "LaTeX in the text: $x$",
    "<math><mi>ب</mi></math>": "the font lacks U+628 ب",
    "<a href='nowhere.html'>x</a>": "broken link: nowhere.html",
    "<a href='other.html#here'>x</a>": "broken link: other.html#here",
    "<p id='a'></p><p id='a'></p>": "id used twice: a",
    "<h1>a</h1><h3>b</h3>": "heading skips a level: h3 after h1",
    "x" * 250_000: "has 250 kB; a page may have 250",
}


@pytest.mark.parametrize("body", FAULTY, ids=lambda body: body[:40])
def test_finds_the_fault(check_html, tmp_path, body):
    assert faults(check_html, tmp_path, body) == [FAULTY[body]]


@pytest.mark.parametrize(
    "body",
    [
        "<a href='other.html#there'>x</a> <a href='https://example.org'>x</a>",
        r"<pre>\(x\)</pre><code>$HOME/$USER</code>",
        "<math><mi>α</mi><mo>∑</mo></math>",
    ],
)
def test_finds_nothing_where_nothing_is_wrong(check_html, tmp_path, body):
    assert faults(check_html, tmp_path, body) == []


def test_finds_styles_that_load_from_a_network(check_html, tmp_path):
    (tmp_path / "page.html").write_text("", encoding="utf-8")
    style = "/* https://example.org */ @font-face { src: url('https://example.org/a.woff2') }"
    (tmp_path / "a.css").write_text(style, encoding="utf-8")
    assert check_html.check(tmp_path) == {"a.css": ["loads from a network: https://example.org/a.woff2"]}
