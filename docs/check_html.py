"""Checks the files of the built site, without a browser and without a network.

    python docs/check_html.py docs/_build/html

Prints the faults and exits with 1 if there are any: scripts, styles, fonts or pictures from a network, LaTeX in the
text, characters of formulas that the site's font lacks, broken links, pictures without text, ids used twice, headings
that skip a level, pages that are too large.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

CHARACTERS = Path(__file__).parent / "extensions" / "characters.txt"
MAX_BYTES = 250_000  # of a page that people read; the index and the code listings may be larger
LATEX = re.compile(r"\\[(\[]|\$[^$\s][^$]*\$|\\[a-zA-Z]+\{")
NETWORK = re.compile(r"(https?:)?//")
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """What one HTML file holds."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.faults: list[str] = []
        self.formula_text = ""
        self._open: list[tuple[str, str]] = []  # tag and class of the elements around
        self._level = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "index", "search", "author"):
            self.loaded.append(values.get("href", ""))
        if tag == "img" and not values.get("alt", "").strip():
            self.faults.append(f"picture without text: {values.get('src')}")
        if re.fullmatch("h[1-6]", tag) and self._inside("article"):
            if self._level and int(tag[1]) > self._level + 1:
                self.faults.append(f"heading skips a level: {tag} after h{self._level}")
            self._level = int(tag[1])
        if tag not in VOID:
            self._open.append((tag, values.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._inside("math"):
            self.formula_text += data
        elif not self._inside("article") or self._inside("pre", "code", "script", "style", "dt"):
            return
        elif found := LATEX.search(data):
            self.faults.append(f"LaTeX in the text: {data[found.start() :][:60].strip()}")

    def _inside(self, *tags: str) -> bool:
        return any(tag in tags for tag, _ in self._open)


def font_characters() -> set[str]:
    ranges = " ".join(line.partition("#")[0] for line in CHARACTERS.read_text(encoding="utf-8").splitlines()).split()
    bounds = [[int(end, 16) for end in part.split("-")] for part in ranges]
    return {chr(code) for first, *last in bounds for code in range(first, (last or [first])[0] + 1)}


def check(site: Path) -> dict[str, list[str]]:
    """Returns the faults by file."""
    paths = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    if not paths:
        sys.exit(f"Expected {site} to hold the built site, but it has no HTML file")
    pages = {path: Page(path) for path in paths}
    known = font_characters()
    faults = {}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        wrong = list(page.faults)
        wrong += [f"id used twice: {i}" for i in sorted(set(page.ids)) if page.ids.count(i) > 1]
        wrong += [f"loads from a network: {address}" for address in page.loaded if NETWORK.match(address)]
        wrong += [f"file is missing: {a}" for a in page.loaded if _is_missing(path, a)]
        wrong += [f"the font lacks U+{ord(c):X} {c}" for c in sorted(set(page.formula_text) - known - set("\n"))]
        wrong += [f"broken link: {link}" for link in page.links if _is_broken(path, link, pages)]
        size = path.stat().st_size
        if size > MAX_BYTES and not name.startswith(("_modules/", "genindex")):
            wrong.append(f"has {size / 1000:.0f} kB; a page may have {MAX_BYTES / 1000:.0f}")
        faults[name] = wrong
    for style in site.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", style.read_text(encoding="utf-8"), flags=re.DOTALL)
        loaded = re.findall(r"""(?:url\(|@import)\s*["']?([^"')]+)""", text)
        faults[style.relative_to(site).as_posix()] = [
            f"loads from a network: {address}" for address in loaded if NETWORK.match(address)
        ] + [f"file is missing: {address}" for address in loaded if _is_missing(style, address)]
    return {name: list(dict.fromkeys(wrong)) for name, wrong in faults.items() if wrong}


def _is_missing(path: Path, address: str) -> bool:
    file = unquote(re.split("[?#]", address)[0])
    return bool(file) and not re.match(r"\w+:|//", file) and not (path.parent / file).is_file()


def _is_broken(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    file, place = (unquote(part) for part in urldefrag(link))
    if re.match(r"\w+:|//", file):
        return False
    target = (path.parent / file.partition("?")[0]).resolve() if file else path
    if not target.is_file():
        return True
    return bool(place) and target in pages and place not in pages[target].ids


def report(faults: dict[str, list[str]]) -> int:
    """Prints faults; returns the exit status."""
    for name, wrong in faults.items():
        print(name, *wrong, sep="\n  ")
    print(f"{sum(map(len, faults.values()))} faults in {len(faults)} files" if faults else "No fault found")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(report(check(Path(sys.argv[1]).resolve(strict=True))))
