"""Uses the demo page in headless Chromium as a person would, at two widths, light and dark.

    python docs/check_demo.py MODEL --screenshots /tmp/screenshots

Tries a composed scene, the sliders, a picture with its sound, a video, and files that are refused. Prints the faults
and exits with 1 if there are any: a result that does not come, a file that is not refused, content that leaves the
window, text without contrast, errors on the console, requests to another host than this machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
from check_site import LAYOUT
from PIL import Image

WIDTHS = {"wide": 1280, "narrow": 390}
MEGABYTES = 5
DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo.py"
DRAWN = "[...document.querySelectorAll('#views img')].every(i => i.complete && !i.loading_)"
LAYOUT_OF_BODY = LAYOUT.replace("article", "body")


def start(model: Path) -> tuple[subprocess.Popen[str], str]:
    """Starts the demo on a free port; returns the process and the address."""
    command = [sys.executable, str(DEMO), str(model), "--port", "0", "--max-megabytes", str(MEGABYTES)]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = demo.stdout.readline() if demo.stdout else ""
    if not line.startswith("http"):
        sys.exit("The demo does not start")
    return demo, line.split()[0]


def write_files(folder: Path, page: Any, address: str) -> None:
    """Writes a picture, a sound and a video of a composed scene, and files that the demo must refuse."""
    for part, name in (("picture", "scene.jpg"), ("sound", "scene.wav")):
        (folder / name).write_bytes(page.request.get(f"{address}/scenes/2/{part}").body())
    write_video(folder / "scene.mp4", folder / "scene.jpg", folder / "scene.wav")
    (folder / "drawing.png").write_text('<svg xmlns="http://www.w3.org/2000/svg"><image href="http://x.org/"/></svg>')
    (folder / "playlist.wav").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")
    (folder / "truncated.jpg").write_bytes((folder / "scene.jpg").read_bytes()[:3000])
    with (folder / "huge.wav").open("wb") as file:
        file.truncate(MEGABYTES * 1_000_000 + 1)


def write_video(path: Path, picture: Path, sound: Path) -> None:
    """Moves a view over a picture for the 3 s of a sound."""
    pixels = np.asarray(Image.open(picture).convert("RGB").resize((400, 320)))
    with av.open(str(path), "w") as target, av.open(str(sound)) as source:
        pictures = target.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 320, 320, "yuv420p"
        sounds = target.add_stream("aac", rate=16_000, layout="mono")
        for number in range(30):
            view = np.ascontiguousarray(pixels[:, 2 * number : 2 * number + 320])
            target.mux(pictures.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        target.mux(pictures.encode(None))
        for frame in source.decode(audio=0):
            target.mux(sounds.encode(frame))
        target.mux(sounds.encode(None))


class Check:
    """One look at the page, at a width and in a theme."""

    def __init__(self, page: Any, files: Path, screenshots: Path | None, view: str) -> None:
        self.page, self.files, self.screenshots, self.view = page, files, screenshots, view
        self.faults: list[str] = []

    def photograph(self, name: str) -> None:
        self.faults += [f"{line} ({name})" for line in self.page.evaluate(f"() => {{ {LAYOUT_OF_BODY} }}")]
        if self.screenshots:
            self.screenshots.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=self.screenshots / f"{self.view}-{name}.png", full_page=True)

    def until(self, condition: str, seconds: float = 15) -> None:
        """Waits for a condition in JavaScript; the page's policy allows no function of Playwright's for this."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(f"() => Boolean({condition})"):
            if time.monotonic() > end:
                self.faults.append(f"waited {seconds} s in vain for {condition}")
                return
            self.page.wait_for_timeout(50)

    def expect(self, wanted: str, selector: str) -> None:
        """Waits for the end of a run, and compares the text of an element with a regular expression."""
        self.until("!busy", 120)
        self.until(DRAWN)
        text = self.page.inner_text(selector) if self.page.is_visible(selector) else "nothing"
        if not re.search(wanted, text):
            self.faults.append(f"expected {wanted!r} in {selector}, but got {text!r}")

    def run_files(self, picture: str, sound: str | None = None) -> None:
        self.page.set_input_files("#picture", self.files / picture)
        if sound:
            self.page.set_input_files("#sound", self.files / sound)
        self.page.click("#run")

    def slide(self, name: str, value: int) -> None:
        """Moves a slider; its pictures must change and the model must not run."""
        before, asked = self.first_picture(), []
        self.page.on("request", lambda request: asked.append(request.url))
        self.page.fill(f"#{name}", str(value))
        self.until(DRAWN)
        if self.first_picture() == before:
            self.faults.append(f"the slider {name} changes nothing")
        if any("localize" in url for url in asked):
            self.faults.append(f"the slider {name} runs the model")

    def first_picture(self) -> bytes:
        return bytes(self.page.locator("#views img").first.screenshot())

    def all(self) -> None:
        page = self.page
        page.wait_for_selector("#scenes button")
        self.photograph("start")
        page.click("#scenes button:nth-child(3)")
        self.expect("2 sources asked for, 2 found", "#text")
        self.photograph("scene")
        self.slide("threshold", 60)
        self.slide("opacity", 90)
        self.photograph("sliders")
        page.select_option("#sources", "")
        page.select_option("#identification", index=1)
        self.run_files("scene.jpg", "scene.wav")
        self.expect("found, told apart by", "#text")
        self.photograph("picture")
        self.run_files("drawing.png")
        self.expect(r"the picture to be a picture \(JPEG.* but got an SVG drawing", "#error")
        self.photograph("refused")
        for picture, sound, text in (
            ("bomb.png", "scene.wav", "50 million pixels or less, but got 9000 × 9000"),
            ("truncated.jpg", "scene.wav", "the picture .* can't be read"),
            ("scene.jpg", "playlist.wav", "the sound to be a sound, but got a playlist"),
            ("scene.jpg", "huge.wav", f"{MEGABYTES} MB or less, but got 5.0 MB"),
            ("scene.wav", "scene.wav", "but got a damaged file|but got a sound"),
        ):
            self.run_files(picture, sound)
            self.expect(text, "#error")
        self.run_files("scene.mp4")
        self.expect("6 maps, one for every 5 frames", "#text")
        page.evaluate("() => { const v = document.getElementById('heat-video'); v.muted = true; v.play(); }")
        self.until("document.getElementById('heat-video').currentTime > 0.5")
        page.locator("#heat-video").scroll_into_view_if_needed()
        page.evaluate("() => document.getElementById('heat-video').pause()")
        page.wait_for_timeout(500)  # Chromium draws what is out of sight late
        self.photograph("video")
        self.slide("opacity", 40)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", type=Path, help="a model, as for examples/demo.py")
    parser.add_argument("--screenshots", type=Path, metavar="DIR", help="write pictures of the page to this folder")
    options = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("Missing: pip install playwright")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        sys.exit("Missing: apt-get install chromium")
    demo, address = start(options.model)
    faults: list[str] = []
    try:
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
            for name, width in WIDTHS.items():
                for theme in ("light", "dark"):
                    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
                    view, said, hosts = f"{name}-{theme}", [], set()
                    page.on("request", lambda request, hosts=hosts: hosts.add(urlsplit(request.url)[:2]))
                    page.on("console", lambda message, said=said: said.append(message.text))
                    page.on("pageerror", lambda error, said=said: said.append(str(error)))
                    page.goto(address)
                    write_files(Path(folder), page, address)
                    check = Check(page, Path(folder), options.screenshots, view)
                    check.all()
                    own = urlsplit(address)[1]
                    strangers = [url for url in hosts if url[0] in ("http", "https", "ws", "wss") and url[1] != own]
                    check.faults += [f"asks another host: {url}" for url in strangers]
                    # Chromium reports every answer that is an error.
                    check.faults += [f"console: {line}" for line in said if "status of 400" not in line]
                    faults += [f"{view}: {fault}" for fault in check.faults]
                    page.close()
            browser.close()
    finally:
        demo.send_signal(signal.SIGINT)
        status = demo.wait(20)
    faults += [f"Ctrl-C ends the demo with {status}"] if status else []
    print(*faults, sep="\n")
    print(f"{len(faults)} faults" if faults else "No fault found")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
