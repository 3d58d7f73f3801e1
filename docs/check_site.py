"""Checks the files of the built site, and every page in headless Chromium, light and dark, at three widths.

    python docs/check_site.py docs/_build/html --screenshots /tmp/screenshots

Prints the faults and exits with 1 if there are any: those that check_html.py finds, content that leaves the window and
does not scroll, boxes that scroll without a sign, columns of single words, pictures that are cut off or not loaded,
text without contrast, errors on the console, a search without result. Without Chromium, it checks the files only and
says so.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import check_html

WIDTHS = {"phone": 390, "laptop": 1280, "wide": 1440}
SLICE = 1800  # pixels of a page on one screenshot

READY = """
const done = arguments[0];
document.fonts.ready.then(() => setTimeout(done, location.search ? 2000 : 0));
"""

# Independent of width and theme.
CONTENT = r"""
const all = s => [...document.querySelectorAll(s)], wrong = [];
for (const f of all('math')) if (!f.getBoundingClientRect().width || f.querySelector('merror'))
  wrong.push(`formula not drawn: ${f.textContent.slice(0, 60)}`);
for (const i of all('img')) if (!i.naturalWidth) wrong.push(`picture not loaded: ${i.src}`);
if (location.search && !document.querySelector('#search-results li')) wrong.push('the search finds nothing');
return wrong;
"""

# Dependent on width and theme: faults. WCAG asks for a contrast of 4.5, for large text of 3.
LAYOUT = r"""
const wrong = [], root = document.documentElement, style = e => getComputedStyle(e), up = e => e.parentElement;
const name = e => `<${e.localName}> ${e.textContent.trim().slice(0, 60)}`;
const inside = e => !e.matches('article') && (/auto|scroll/.test(style(e).overflowX) || inside(up(e)));
const rgba = c => { const [r, g, b, a = 1] = c.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
const over = ([r, g, b, a], back) => [r, g, b].map((v, i) => v * a + back[i] * (1 - a));
const ground = e => e ? over(rgba(style(e).backgroundColor), ground(up(e))) : [255, 255, 255];
const linear = v => v <= 10.3 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
if (root.scrollWidth > root.clientWidth) wrong.push(`the page is ${root.scrollWidth} px wide`);
for (const e of document.querySelectorAll('article *:not(math *)')) {
  const box = e.getBoundingClientRect(), s = style(e), size = parseFloat(s.fontSize);
  if (!box.width || s.visibility === 'hidden') continue;
  if (box.right > root.clientWidth + 1 && !inside(up(e))) wrong.push(`cut off: ${name(e)}`);
  if (e.matches('img') && box.right > root.clientWidth + 1) wrong.push(`picture cut off: ${e.src}`);
  if (e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(s.overflowX) && s.backgroundImage === 'none')
    wrong.push(`scrolls without a sign: ${name(e)}`);
  if (e.matches('td') && box.width < 60 && e.textContent.length > 40) wrong.push(`narrow column: ${name(e)}`);
  if (e.matches('.headerlink') || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
  const back = ground(e), [a, b] = [light(over(rgba(s.color), back)), light(back)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05), large = size >= 24 || (size >= 18.6 && +s.fontWeight > 600);
  if (ratio < (large ? 3 : 4.5)) wrong.push(`contrast ${ratio.toFixed(1)}: ${name(e)}`);
}
return wrong;
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def chromium() -> Any:
    """Starts the browser; returns a sentence that says what is missing if it can't."""
    try:
        from selenium import webdriver
    except ImportError:
        return "pip install selenium"
    driver, browser = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if not driver or not browser:
        return "apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def set_view(browser: Any, width: int, theme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": theme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def photograph(browser: Any, width: int, stem: Path) -> None:
    height = browser.execute_script("return document.documentElement.scrollHeight")
    stem.parent.mkdir(parents=True, exist_ok=True)
    for number, top in enumerate(range(0, height, SLICE)):
        clip = {"x": 0, "y": top, "width": width, "height": min(SLICE, height - top), "scale": 1}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        Path(f"{stem}-{number:02}.png").write_bytes(base64.b64decode(shot["data"]))


def check(browser: Any, site: Path, address: str, screenshots: Path | None) -> dict[str, list[str]]:
    """Returns the faults by page. The search comes last, because its words are highlighted on the pages after it."""
    pages = [p.relative_to(site).as_posix() for p in site.rglob("*.html") if "_static" not in p.parts]
    faults = {}
    for page in sorted(pages, key=lambda page: (page == "search.html", page)):
        browser.get(address + page + ("?q=loss" if page == "search.html" else ""))
        browser.execute_async_script(READY)
        wrong = browser.execute_script(CONTENT)
        for size, width in WIDTHS.items():
            for theme in ("light", "dark"):
                set_view(browser, width, theme)
                wrong += [f"{line} ({size}, {theme})" for line in browser.execute_script(LAYOUT)]
                if screenshots and not page.startswith("_modules"):
                    photograph(browser, width, screenshots / f"{page.removesuffix('.html')}-{size}-{theme}")
        said = (entry["message"] for entry in browser.get_log("browser"))
        faults[page] = wrong + [f"console: {line}" for line in said if "favicon.ico" not in line]
    return {page: list(dict.fromkeys(lines)) for page, lines in faults.items() if lines}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("site", type=Path, help="the folder with the built HTML")
    parser.add_argument("--screenshots", type=Path, metavar="DIR", help="write pictures of every page to this folder")
    options = parser.parse_args()
    site = options.site.resolve(strict=True)
    faults = check_html.check(site)
    browser = chromium()
    if isinstance(browser, str):
        print(f"Skipped the checks in a browser. They need: {browser}")
        return check_html.report(faults)
    handler = functools.partial(Quiet, directory=str(site))
    try:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            drawn = check(browser, site, f"http://127.0.0.1:{server.server_port}/", options.screenshots)
            server.shutdown()
    finally:
        browser.quit()
    return check_html.report({name: faults.get(name, []) + drawn.get(name, []) for name in faults | drawn})


if __name__ == "__main__":
    sys.exit(main())
