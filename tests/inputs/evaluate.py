"""The evaluate command: saved maps, names that would be paths, lists of clips, arguments."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inputs.annotations import BAD_IDS, OUTSIDE
from inputs.cases import Case, Contents, FileRow, InputClass, changed_bytes
from sslosses.evaluate import main
from sslosses.evaluate.saved_maps import SavedMaps

CLIP = "a_000030"
BOX = {"file": CLIP, "class": "elk bugling", "bbox": [[0, 0, 0.5, 1]]}


class RefusedError(ValueError):
    """The last line that the command wrote to stderr."""


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def header(text: str) -> bytes:
    """The beginning of an NPY file of version 1."""
    content = text.encode()
    return b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content


def archive(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


VALID = npy(np.array([[0.9, 0.1], [0.9, 0.1]], np.float32))
VALID_NPZ = archive((f"{CLIP}.npy", VALID))


class Place(NamedTuple):
    """Where maps are saved: which path the command is given, and which file below it holds the maps."""

    maps: str
    file: str

    def write(self, folder: Path, content: bytes) -> Callable[[], list[Any]]:
        path = folder / self.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return lambda: load(folder / self.maps)


def load(path: Path) -> list[Any]:
    with SavedMaps(path) as saved:
        return [saved.load(clip) for clip in saved.clips]


NPY = Place("maps", f"maps/{CLIP}.npy")
NPZ = Place("maps", f"maps/{CLIP}.npz")
ARCHIVE = Place("maps.npz", "maps.npz")


class Code:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('code of a file was run')",))


def headers(*texts: str, rest: bytes = b"") -> list[bytes]:
    return [header(text) + rest for text in texts]


def bomb() -> Iterator[bytes]:
    """324 MB of zeros, in some kilobytes."""
    head = header("{'descr': '<f4', 'fortran_order': False, 'shape': (9000, 9000), }")
    yield archive((f"{CLIP}.npy", head + bytes(9000 * 9000 * 4)))


def clip_twice() -> Iterator[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns about the name
        yield archive((f"{CLIP}.npy", VALID), (f"{CLIP}.npy", VALID))


HUGE_SHAPES = ("(1000000000000, 2)", "(2, 1000000000, 1000000000)", f"(2, {'9' * 40})", f"({', '.join(['10'] * 40)})")
#: Where the maps are, and an input class.
ROWS: tuple[tuple[Place, FileRow], ...] = (
    (
        NPY,
        FileRow(
            "a header of terabytes",
            headers(
                *(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}" for shape in HUGE_SHAPES),
                rest=b"\0" * 64,
            ),
            "its header claims",
        ),
    ),
    (
        NPY,
        FileRow(
            "a header of anything else",
            headers(
                "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }",
                "{'descr': (), 'fortran_order': False, 'shape': (2, 2), }",
                "{'descr': [('a', '<f4')] * 3, 'fortran_order': 1, 'shape': None}",
                "{[]: 1}",
                "(" * 9000,
                "__import__('os').abort()",
                "1L" + "{" * 100,
                "{'shape': (",
                "",
            ),
            "cannot be read",
        ),
    ),
    (
        NPY,
        FileRow(
            "a header of 4 GB, unknown versions",
            [b"\x93NUMPY\x02\x00\xff\xff\xff\xff", b"\x93NUMPY\x03\x00\x10\x00\x00\x00", b"\x93NUMPY\x09\x09"],
            "cannot be read",
        ),
    ),
    (
        NPY,
        FileRow(
            "objects with code (pickle)",
            [npy(np.array([Code()], dtype=object), allow_pickle=True), pickle.dumps(Code())],
            "cannot be read",
        ),
    ),
    (
        NPY,
        FileRow(
            "other shapes and dtypes, NaN, infinite, 1e4000",
            [
                npy(array)
                for array in (
                    *(np.zeros(3), np.zeros((1, 1, 2, 2)), np.zeros((0, 2)), np.zeros((2, 2), complex)),
                    *(np.array([["a"]]), np.array([[b"a"]])),
                    *(np.zeros((2, 2), "M8[s]"), np.zeros((2, 2), [("a", "f4")])),
                    *(np.full((2, 2), value) for value in (np.nan, np.inf, np.longdouble("1e4000"))),
                )
            ],
            f"{CLIP}: expected",
        ),
    ),
    (NPZ, FileRow(".npz of one array, a zip bomb of 324 MB", bomb, "at most 268,435,456 are read")),
    (ARCHIVE, FileRow("NPZ of all clips, a zip bomb of 324 MB", bomb, "at most 268,435,456 are read")),
    (ARCHIVE, FileRow("a clip twice in an NPZ", clip_twice, "one array per clip")),
    (
        ARCHIVE,
        FileRow("no archive, an array, a pickle", [b"", b"text", VALID, pickle.dumps([1])], "a folder or an NPZ file"),
    ),
    (
        NPZ,
        FileRow(
            "two arrays for a clip, none", [archive(("a.npy", VALID), ("b.npy", VALID)), archive()], "arrays, not one"
        ),
    ),
)


def _saved_maps() -> Iterator[InputClass]:
    def cases(folder: Path, place: Place, contents: Contents, error: str, may_succeed: bool) -> Iterator[Case]:
        for content in contents() if callable(contents) else contents:
            yield Case(place.write(folder, content), error, may_succeed=may_succeed)

    def made(place: Place, name: str, contents: Contents, error: str, may_succeed: bool = False) -> InputClass:
        return InputClass("--maps", name, lambda folder: cases(folder, place, contents, error, may_succeed))

    places = {".npy": (NPY, VALID), ".npz of one array": (NPZ, VALID_NPZ), "NPZ of all clips": (ARCHIVE, VALID_NPZ)}
    for title, (place, valid) in places.items():
        cut, random = changed_bytes(valid)
        yield made(place, f"{title}, {cut.name}", cut.contents, f"{CLIP}|maps\\.npz")
        yield made(place, f"{title}, {random.name}", random.contents, "[Ee]xpected", may_succeed=True)
    for place, row in ROWS:
        yield made(place, row.name, row.contents, row.error or "")
    yield InputClass("--maps", "every real dtype, both byte orders", _dtypes)


def _dtypes(folder: Path) -> Iterator[Case]:
    for dtype in ("<f2", ">f4", "<f8", "<i4", "|u1", ">u8", "|b1"):
        yield Case(
            NPY.write(folder, npy(np.eye(2).astype(dtype))),
            check=lambda maps: maps[0].tolist() == [[[1, 0], [0, 1]]],
        )


def command(folder: Path, *more: str, maps: str = "maps", clip: str = CLIP) -> str:
    """What the command prints for maps in a folder and boxes of one clip.

    Raises:
        RefusedError: if the command fails.
    """
    boxes = folder / "boxes.json"
    boxes.write_text(json.dumps([BOX | {"file": clip}]))
    out, err = io.StringIO(), io.StringIO()
    paths = ["--maps", str(folder / maps), "--annotations", str(boxes), "--out", str(folder / "out")]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([*paths, "--format", "vggss", "--protocol", "paper", "--no-chance", *more])
        except SystemExit as stop:
            status = stop.code
    if status:
        assert not (folder / "out").exists()
        raise RefusedError(err.getvalue().strip().splitlines()[-1])
    return out.getvalue()


def _annotated_names(folder: Path) -> Iterator[Case]:
    (folder / "maps").mkdir()
    for name in BAD_IDS:
        yield Case(lambda name=name: command(folder, "--no-sheet", clip=name), "clip id|non-empty")


def _archived_names(folder: Path) -> Iterator[Case]:
    (folder / "outside.npy").write_bytes(VALID)
    for name in ("../outside", "/etc/passwd", "a\\..\\b", "a\nb", "\x1b[2J"):
        ARCHIVE.write(folder, archive((f"{CLIP}.npy", VALID), (f"{name}.npy", VALID)))
        yield Case(lambda: command(folder, "--no-sheet", maps="maps.npz"), "maps of annotated clips only")


def _listed_names(folder: Path) -> Iterator[Case]:
    NPY.write(folder, VALID)
    clips = folder / "clips.txt"
    for content in (b"../outside\n", b"/etc/passwd,x\n", b"\xff\n", b",\n", b"\n", b""):
        clips.write_bytes(content)
        yield Case(lambda: command(folder, "--no-sheet", "--clips", str(clips)), "clips.txt")


def _videos(folder: Path) -> Iterator[Case]:
    NPY.write(folder, VALID)
    videos = folder / "videos.csv"
    lines = (b"", b"\xff", b",", b"a_000030", b"a_000030,", b",v", b"b,v", b"a_000030,v\na_000030,w")
    for content in lines:
        videos.write_bytes(content)
        yield Case(lambda: command(folder, "--no-sheet", "--videos", str(videos)), "videos.csv")


def _huge_png() -> bytes:
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return b"\x89PNG\r\n\x1a\n" + chunk


def _pictures(folder: Path) -> Iterator[Case]:
    name = "a$b_{$"
    (folder / "maps").mkdir()
    (folder / "maps" / f"{name}.npy").write_bytes(VALID)
    frames = folder / "frames"
    frames.mkdir()
    for content in (b"", b"\xff\xd8\xff\xe0" + b"\0" * 40, b"\x89PNG\r\n\x1a\n" + b"\0" * 40, _huge_png()):
        for suffix in (".jpg", ".png"):
            (frames / f"{name}{suffix}").write_bytes(content)
        yield Case(lambda: command(folder, "--frames-dir", str(frames), clip=name))


WRONG_ARGUMENTS = (
    *(("--seed", "9" * 30), ("--seed", "x"), ("--pictures", "0"), ("--layout", "x")),
    *(("--resamples", "9" * 30), ("--resamples", "-1"), ("--against", "/nonexistent")),
    *(("--protocol", "paper,paper"), ("--protocol", "../paper")),
    *(("--maps", "/nonexistent"), ("--frames-dir", "/nonexistent")),
)


def _arguments(folder: Path) -> Iterator[Case]:
    NPY.write(folder, VALID)
    for more in WRONG_ARGUMENTS:
        yield Case(lambda more=more: command(folder, "--no-sheet", *more), "rror: ")


#: Of the argument that each is about.
COMMANDS: tuple[tuple[str, str, Callable[[Path], Iterable[Case]]], ...] = (
    ("--annotations", OUTSIDE, _annotated_names),
    ("--maps", "names in an NPZ that lead out of a folder", _archived_names),
    ("--clips", "ids that are not annotated, no text, no line", _listed_names),
    ("--videos", "no text, no line, clips without a video or with two", _videos),
    ("--frames-dir", "broken pictures, one of 10¹⁰ pixels, ids with signs of formulas", _pictures),
    ("arguments", "huge, unknown, missing", _arguments),
)

CLASSES = [*_saved_maps(), *(InputClass(*row) for row in COMMANDS)]
