"""Draws instruments, players and furniture into boxes of any size."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]
#: left, top, right and bottom in pixels.
PixelBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class Palette:
    """Colors of one scene. Training and test scenes use hues from interleaved, disjoint bins."""

    rng: np.random.Generator
    held_out: bool
    bins: int = 32

    def _bin(self, low: float, high: float) -> float:
        position = 2 * int(self.rng.integers(self.bins // 2)) + int(self.held_out)
        return low + (high - low) * (position + float(self.rng.random())) / self.bins

    def color(self, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Color:
        """Samples an 8-bit RGB color, with its hue from a bin of this split."""
        rgb = colorsys.hsv_to_rgb(self._bin(*hue) % 1.0, self.rng.uniform(*saturation), self.rng.uniform(*value))
        return tuple(round(255 * v) for v in rgb)  # type: ignore[return-value]

    def wood(self) -> Color:
        return self.color((0.02, 0.10), (0.55, 0.9), (0.4, 0.85))

    def brass(self) -> Color:
        return self.color((0.11, 0.16), (0.55, 0.9), (0.75, 1.0))

    def cloth(self) -> Color:
        return self.color((0.0, 1.0), (0.3, 0.9), (0.25, 0.9))

    def wall(self) -> Color:
        return self.color((0.0, 1.0), (0.05, 0.35), (0.6, 0.95))

    def skin(self) -> Color:
        return self.color((0.03, 0.09), (0.25, 0.6), (0.45, 0.95))


class Pen:
    """Draws in coordinates of a box, from (0, 0) to (1, 1), optionally mirrored.

    Line widths are fractions of the box's shorter side.
    """

    def __init__(self, draw: ImageDraw.ImageDraw, box: PixelBox, mirrored: bool = False) -> None:
        self.draw, self.box, self.mirrored = draw, box, mirrored
        self.unit = min(box[2] - box[0], box[3] - box[1])

    def at(self, point: Point) -> Point:
        """Converts a point of the box to pixels."""
        x = 1 - point[0] if self.mirrored else point[0]
        left, top, right, bottom = self.box
        return left + x * (right - left), top + point[1] * (bottom - top)

    def polygon(self, points: Sequence[Point], fill: Color) -> None:
        self.draw.polygon([self.at(p) for p in points], fill=fill, outline=shade(fill, 0.5))

    def line(self, points: Sequence[Point], fill: Color, width: float) -> None:
        self.draw.line([self.at(p) for p in points], fill=fill, width=max(1, round(width * self.unit)), joint="curve")

    def ellipse(self, center: Point, rx: float, ry: float, fill: Color, outline: float = 0.5) -> None:
        (x0, y0), (x1, y1) = self.at((center[0] - rx, center[1] - ry)), self.at((center[0] + rx, center[1] + ry))
        self.draw.ellipse((min(x0, x1), y0, max(x0, x1), y1), fill=fill, outline=shade(fill, outline))

    def arc(self, center: Point, radius: float, start: float, end: float, fill: Color, width: float) -> None:
        angles = np.radians(np.linspace(start, end, 9))
        self.line([(center[0] + radius * math.cos(a), center[1] + radius * math.sin(a)) for a in angles], fill, width)


def shade(color: Color, factor: float) -> Color:
    """Makes a color darker (factor < 1) or lighter (factor > 1)."""
    return tuple(min(255, round(v * factor)) for v in color)  # type: ignore[return-value]


def accordion(pen: Pen, palette: Palette) -> None:
    body, bellows = palette.cloth(), palette.cloth()
    for i in range(9):
        x = 0.26 + i * 0.055
        pen.polygon([(x, 0.08), (x + 0.055, 0.08), (x + 0.055, 0.92), (x, 0.92)], shade(bellows, 1.0 if i % 2 else 0.6))
    pen.polygon([(0, 0), (0.26, 0.05), (0.26, 0.95), (0, 1)], body)
    pen.polygon([(0.75, 0.05), (1, 0), (1, 1), (0.75, 0.95)], body)
    for i in range(8):
        pen.polygon(
            [(0.02, 0.06 + i * 0.11), (0.15, 0.07 + i * 0.11), (0.15, 0.15 + i * 0.11), (0.02, 0.15 + i * 0.11)],
            (245, 245, 240),
        )
        pen.ellipse((0.88, 0.12 + i * 0.11), 0.035, 0.03, (235, 235, 235))


def acoustic_guitar(pen: Pen, palette: Palette) -> None:
    wood = palette.wood()
    pen.polygon([(0.44, 0.08), (0.56, 0.08), (0.56, 0.6), (0.44, 0.6)], shade(wood, 0.5))
    pen.polygon([(0.38, 0), (0.62, 0), (0.58, 0.1), (0.42, 0.1)], shade(wood, 0.7))
    pen.ellipse((0.5, 0.56), 0.36, 0.15, wood, 1.0)
    pen.ellipse((0.5, 0.8), 0.5, 0.2, wood, 1.0)
    pen.ellipse((0.5, 0.66), 0.17, 0.075, (25, 18, 12))
    pen.line([(0.33, 0.86), (0.67, 0.86)], shade(wood, 0.4), 0.06)
    for x in (0.47, 0.5, 0.53):
        pen.line([(x, 0.04), (x, 0.86)], (230, 230, 220), 0.01)


def cello(pen: Pen, palette: Palette) -> None:
    wood = shade(palette.wood(), 0.8)
    pen.line([(0.5, 0.9), (0.5, 1.0)], (120, 120, 120), 0.04)
    pen.ellipse((0.5, 0.48), 0.36, 0.13, wood, 1.0)
    pen.polygon([(0.24, 0.5), (0.76, 0.5), (0.68, 0.62), (0.8, 0.76), (0.2, 0.76), (0.32, 0.62)], wood)
    pen.ellipse((0.5, 0.77), 0.5, 0.17, wood, 1.0)
    pen.polygon([(0.45, 0.05), (0.55, 0.05), (0.57, 0.62), (0.43, 0.62)], (30, 24, 20))
    pen.ellipse((0.5, 0.04), 0.09, 0.04, wood)
    for x in (0.27, 0.73):
        pen.arc((x, 0.66), 0.07, -70, 70, (20, 14, 10), 0.035)
    pen.line([(0.37, 0.7), (0.63, 0.7)], (225, 200, 150), 0.04)


def erhu(pen: Pen, palette: Palette) -> None:
    wood = shade(palette.wood(), 0.6)
    pen.line([(0.5, 0.0), (0.5, 0.85)], wood, 0.12)
    for y in (0.08, 0.2):
        pen.line([(0.5, y), (1.0, y - 0.03)], wood, 0.09)
    pen.polygon([(0.15, 0.72), (0.85, 0.72), (1.0, 0.86), (0.85, 1.0), (0.15, 1.0), (0.0, 0.86)], wood)
    pen.ellipse((0.5, 0.86), 0.26, 0.11, (200, 205, 180))
    pen.line([(0.62, 0.1), (0.56, 0.86)], (240, 240, 240), 0.015)


def saxophone(pen: Pen, palette: Palette) -> None:
    brass = palette.brass()
    pen.line([(0.0, 0.1), (0.2, 0.02), (0.36, 0.1), (0.46, 0.7)], brass, 0.14)
    pen.line([(0.46, 0.66), (0.5, 0.86), (0.66, 0.93), (0.8, 0.84), (0.8, 0.6)], brass, 0.24)
    pen.polygon([(0.68, 0.66), (0.92, 0.66), (1.0, 0.42), (0.6, 0.42)], brass)
    pen.ellipse((0.8, 0.42), 0.2, 0.05, shade(brass, 0.4))
    for i in range(6):
        pen.ellipse((0.4 + 0.02 * i, 0.2 + 0.08 * i), 0.06, 0.028, shade(brass, 1.25))


def trumpet(pen: Pen, palette: Palette) -> None:
    brass = palette.brass()
    pen.line([(0.0, 0.4), (0.75, 0.4)], brass, 0.13)
    pen.polygon([(0.7, 0.3), (0.85, 0.25), (1.0, 0.0), (1.0, 0.8), (0.85, 0.55), (0.7, 0.5)], brass)
    pen.line([(0.2, 0.4), (0.18, 0.75), (0.6, 0.75), (0.62, 0.4)], brass, 0.1)
    for x in (0.3, 0.4, 0.5):
        pen.polygon([(x, 0.12), (x + 0.06, 0.12), (x + 0.06, 1.0), (x, 1.0)], shade(brass, 0.75))
        pen.ellipse((x + 0.03, 0.09), 0.045, 0.07, (240, 240, 235))


def tuba(pen: Pen, palette: Palette) -> None:
    brass = palette.brass()
    pen.polygon([(0.02, 0.0), (0.9, 0.0), (0.62, 0.28), (0.56, 0.5), (0.34, 0.5), (0.3, 0.28)], brass)
    pen.ellipse((0.46, 0.05), 0.44, 0.05, shade(brass, 0.4))
    pen.ellipse((0.48, 0.72), 0.44, 0.28, brass)
    pen.ellipse((0.48, 0.72), 0.24, 0.15, shade(brass, 0.35))
    pen.arc((0.48, 0.72), 0.34, 0, 360, shade(brass, 0.6), 0.03)
    for y in (0.4, 0.5, 0.6):
        pen.line([(0.7, y), (1.0, y)], shade(brass, 1.2), 0.07)


def xylophone(pen: Pen, palette: Palette) -> None:
    frame = shade(palette.wood(), 0.55)
    for x in (0.08, 0.92):
        pen.line([(x, 0.4), (x, 1.0)], frame, 0.07)
    pen.polygon([(0.0, 0.28), (1.0, 0.4), (1.0, 0.52), (0.0, 0.66)], frame)
    for i in range(9):
        x, half = 0.02 + i * 0.11, 0.36 - 0.024 * i
        bar = shade(
            tuple(round(255 * v) for v in colorsys.hsv_to_rgb(i / 9, 0.75, 0.95)), float(palette.rng.uniform(0.75, 1))
        )  # type: ignore[arg-type]
        pen.polygon([(x, 0.46 - half), (x + 0.085, 0.46 - half), (x + 0.085, 0.46 + half), (x, 0.46 + half)], bar)


INSTRUMENTS: dict[str, tuple[Callable[[Pen, Palette], None], float]] = {
    # name in MUSIC: (drawing, natural width / height)
    "accordion": (accordion, 1.3),
    "acoustic_guitar": (acoustic_guitar, 0.5),
    "cello": (cello, 0.48),
    "erhu": (erhu, 0.45),
    "saxophone": (saxophone, 0.6),
    "trumpet": (trumpet, 1.9),
    "tuba": (tuba, 0.8),
    "xylophone": (xylophone, 1.7),
}
BOWED = ("cello", "erhu")


def person(pen: Pen, palette: Palette) -> None:
    """A standing person with lowered arms, a silent object."""
    skin, shirt, trousers = palette.skin(), palette.cloth(), palette.cloth()
    pen.polygon([(0.3, 0.6), (0.7, 0.6), (0.72, 1.0), (0.54, 1.0), (0.5, 0.7), (0.46, 1.0), (0.28, 1.0)], trousers)
    pen.polygon([(0.22, 0.24), (0.78, 0.24), (0.72, 0.62), (0.28, 0.62)], shirt)
    for x, end in ((0.24, 0.12), (0.76, 0.88)):
        pen.line([(x, 0.28), (end, 0.58)], shirt, 0.12)
        pen.ellipse((end, 0.6), 0.07, 0.035, skin)
    pen.ellipse((0.5, 0.13), 0.17, 0.11, skin)
    pen.polygon([(0.33, 0.11), (0.4, 0.02), (0.6, 0.02), (0.67, 0.11)], (50, 35, 25))


def chair(pen: Pen, palette: Palette) -> None:
    wood = palette.cloth()
    for x in (0.15, 0.85):
        pen.line([(x, 0.55), (x, 1.0)], shade(wood, 0.6), 0.08)
    pen.polygon([(0.15, 0.0), (0.85, 0.0), (0.85, 0.5), (0.15, 0.5)], wood)
    pen.polygon([(0.05, 0.5), (0.95, 0.5), (1.0, 0.64), (0.0, 0.64)], shade(wood, 0.8))


def lamp(pen: Pen, palette: Palette) -> None:
    pen.line([(0.5, 0.3), (0.5, 0.95)], (60, 60, 60), 0.06)
    pen.ellipse((0.5, 0.96), 0.3, 0.04, (60, 60, 60))
    pen.polygon([(0.3, 0.0), (0.7, 0.0), (1.0, 0.36), (0.0, 0.36)], palette.color((0.1, 0.2), (0.2, 0.5), (0.9, 1.0)))


def plant(pen: Pen, palette: Palette) -> None:
    leaf = palette.color((0.25, 0.4), (0.5, 0.9), (0.35, 0.7))
    for i, x in enumerate((0.08, 0.28, 0.5, 0.72, 0.92)):
        pen.polygon([(0.46, 0.7), (x - 0.08, 0.28), (x, 0.04 * (i % 2)), (x + 0.1, 0.3), (0.54, 0.7)], leaf)
    pen.polygon([(0.22, 0.66), (0.78, 0.66), (0.68, 1.0), (0.32, 1.0)], palette.wood())


def table(pen: Pen, palette: Palette) -> None:
    wood = palette.wood()
    for x in (0.12, 0.88):
        pen.line([(x, 0.3), (x, 1.0)], shade(wood, 0.6), 0.1)
    pen.polygon([(0.0, 0.15), (1.0, 0.15), (1.0, 0.38), (0.0, 0.38)], wood)


def window(pen: Pen, palette: Palette) -> None:
    pen.polygon([(0, 0), (1, 0), (1, 1), (0, 1)], (245, 245, 245))
    sky = palette.color((0.5, 0.62), (0.2, 0.6), (0.8, 1.0))
    for x in (0.08, 0.54):
        for y in (0.08, 0.54):
            pen.polygon([(x, y), (x + 0.38, y), (x + 0.38, y + 0.38), (x, y + 0.38)], sky)


SILENT_OBJECTS: dict[str, tuple[Callable[[Pen, Palette], None], float]] = {
    "person": (person, 0.45),
    "chair": (chair, 0.6),
    "lamp": (lamp, 0.45),
    "plant": (plant, 0.7),
    "table": (table, 1.5),
    "window": (window, 1.0),
}


def player_behind(pen: Pen, palette: Palette) -> None:
    """Draws the part of a player behind the instrument: the head above the box and the torso."""
    skin, shirt = palette.skin(), palette.cloth()
    pen.polygon([(0.12, 0.22), (0.35, 0.1), (0.65, 0.1), (0.88, 0.22), (0.85, 0.95), (0.15, 0.95)], shirt)
    head = 0.16 * pen.unit / (pen.box[2] - pen.box[0]), 0.16 * pen.unit / (pen.box[3] - pen.box[1])
    pen.ellipse((0.5, 0.02), *head, skin)
    pen.polygon(
        [(0.5 - head[0], 0.0), (0.5 - head[0] / 2, -head[1]), (0.5 + head[0] / 2, -head[1]), (0.5 + head[0], 0.0)],
        (45, 30, 20),
    )


def player_before(pen: Pen, palette: Palette, *, bowed: bool) -> None:
    """Draws the part of a player in front of the instrument: arms and hands, a bow, motion strokes."""
    skin, sleeve = palette.skin(), palette.cloth()
    for shoulder, hand in (((0.1, 0.26), (0.36, 0.4)), ((0.9, 0.26), (0.66, 0.66))):
        pen.line([shoulder, ((shoulder[0] * 3 + hand[0]) / 4, hand[1]), hand], sleeve, 0.1)
        pen.ellipse(hand, 0.07, 0.07 * (pen.box[2] - pen.box[0]) / (pen.box[3] - pen.box[1]), skin)
    if bowed:
        pen.line([(0.1, 0.72), (1.0, 0.6)], (250, 245, 230), 0.04)
    motion_strokes(pen)


def motion_strokes(pen: Pen) -> None:
    """Draws curved strokes on both sides of the box, as comics show movement."""
    for x, start in ((0.0, 130), (1.0, -50)):
        for radius in (0.12, 0.2):
            pen.arc((x, 0.5), radius, start, start + 100, (250, 250, 250), 0.025)


def sound_waves(pen: Pen) -> None:
    """Draws bold arcs on both sides of the box, visible on any background, to mark sounding photographs."""
    for x, start in ((0.1, 130), (0.9, -50)):
        for radius in (0.1, 0.2, 0.3):
            for color, width in (((20, 20, 20), 0.07), ((255, 255, 255), 0.035)):
                pen.arc((x, 0.5), radius, start, start + 100, color, width)
