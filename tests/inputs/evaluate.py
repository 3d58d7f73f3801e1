"""The evaluate command: saved maps in every state, names that would be paths, lists, arguments."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inputs.readers.annotation_classes import BAD_IDS
from inputs.readers.outcomes import Attempt, Either, InputClass, mutated, truncated
from sslosses.evaluate import main
from sslosses.evaluate.saved_maps import SavedMaps

CLIP = "a_000030"
BOX = {"file": CLIP, "class": "elk bugling", "bbox": [[0, 0, 0.5, 1]]}


class RefusedError(ValueError):
    """What the command said on stderr."""


def _npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def _header(text: str, version: bytes = b"\x01\x00") -> bytes:
    encoded = text.encode()
    size = len(encoded).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + size + encoded


def _zip(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


VALID = _npy(np.array([[0.9, 0.1], [0.9, 0.1]], np.float32))


def _load(path: Path) -> Any:
    with SavedMaps(path) as saved:
        return [saved.load(clip) for clip in saved.clips]


def _in_folder(suffix: str) -> Callable[[Path, bytes], Callable[[], Any]]:
    def write(folder: Path, content: bytes) -> Callable[[], Any]:
        (folder / "maps").mkdir(exist_ok=True)
        (folder / "maps" / f"{CLIP}{suffix}").write_bytes(content)
        return lambda: _load(folder / "maps")

    return write


def _as_file(folder: Path, content: bytes) -> Callable[[], Any]:
    (folder / "maps.npz").write_bytes(content)
    return lambda: _load(folder / "maps.npz")


def _maps(write: Any, name: str, contents: Callable[[], Iterator[bytes]], error: str | None) -> InputClass:
    def attempts(folder: Path) -> Iterator[Attempt | Either]:
        for content in contents():
            run = write(folder, content)
            yield Either(run, "[Ee]xpected") if error is None else Attempt(run, error)

    return InputClass("--maps", name, attempts)


class _Code:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('code of a file was run')",))


def _saved_maps() -> Iterator[InputClass]:
    for kind, write, content in (
        (".npy", _in_folder(".npy"), VALID),
        (".npz of one array", _in_folder(".npz"), _zip((f"{CLIP}.npy", VALID))),
        ("NPZ of all clips", _as_file, _zip((f"{CLIP}.npy", VALID))),
    ):
        yield _maps(write, f"{kind}, truncated at every byte", lambda c=content: truncated(c), f"{CLIP}|maps\\.npz")
        yield _maps(write, f"{kind}, random bytes changed, inserted, moved", lambda c=content: mutated(c, 300), None)
    array = _in_folder(".npy")
    shapes = ("(1000000000000, 2)", "(2, 1000000000, 1000000000)", f"(2, {'9' * 40})", f"({', '.join(['10'] * 40)})")
    headers = [f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}" for shape in shapes]
    yield _maps(
        array, "a header of terabytes", lambda: iter([_header(h) + b"\0" * 64 for h in headers]), "its header says"
    )
    wild = [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }",
        "{'descr': (), 'fortran_order': False, 'shape': (2, 2), }",
        "{'descr': [('a', '<f4')] * 3, 'fortran_order': 1, 'shape': None}",
        "{[]: 1}",
        "(" * 9000,
        "__import__('os').abort()",
        "1L" + "{" * 100,
        "{'shape': (",
        "",
    ]
    yield _maps(array, "a header of anything else", lambda: iter([_header(h) for h in wild]), "cannot be read")
    yield _maps(
        array,
        "a header of 4 GB, unknown versions",
        lambda: iter(
            [b"\x93NUMPY\x02\x00\xff\xff\xff\xff", b"\x93NUMPY\x03\x00\x10\x00\x00\x00", b"\x93NUMPY\x09\x09"]
        ),
        "cannot be read",
    )
    code = _npy(np.array([_Code()], dtype=object), allow_pickle=True)
    yield _maps(array, "objects with code (pickle)", lambda: iter([code, pickle.dumps(_Code())]), "cannot be read")
    bad = (
        np.zeros(3),
        np.zeros((1, 1, 2, 2)),
        np.zeros((0, 2)),
        np.zeros((2, 2), complex),
        np.array([["a"]]),
        np.array([[b"a"]]),
        np.zeros((2, 2), "M8[s]"),
        np.zeros((2, 2), [("a", "f4")]),
        np.full((2, 2), np.nan),
        np.full((2, 2), np.inf),
        np.full((2, 2), np.longdouble("1e4000")),
    )
    yield _maps(
        array,
        "other shapes and dtypes, NaN, infinite, 1e4000",
        lambda: iter([_npy(b) for b in bad]),
        f"{CLIP}: expected",
    )
    for kind, write in ((".npz of one array", _in_folder(".npz")), ("NPZ of all clips", _as_file)):
        yield _maps(write, f"{kind}, a zip bomb of 324 MB", lambda: iter([_bomb()]), "at most 268,435,456 are read")
    yield _maps(_as_file, "a clip twice in an NPZ", lambda: iter([_twice()]), "one array a clip")
    yield _maps(
        _as_file,
        "no archive, an array, a pickle",
        lambda: iter([b"", b"text", VALID, pickle.dumps([1])]),
        "a folder or an NPZ file",
    )
    yield _maps(
        _in_folder(".npz"),
        "two arrays for a clip, none",
        lambda: iter([_zip(("a.npy", VALID), ("b.npy", VALID)), _zip()]),
        "arrays, not one",
    )

    def dtypes(folder: Path) -> Iterator[Attempt]:
        for dtype in ("<f2", ">f4", "<f8", "<i4", "|u1", ">u8", "|b1"):
            yield Attempt(
                _in_folder(".npy")(folder, _npy(np.eye(2).astype(dtype))),
                check=lambda maps: maps[0].tolist() == [[[1, 0], [0, 1]]],
            )

    yield InputClass("--maps", "every real dtype, both byte orders", dtypes)


def _bomb() -> bytes:
    head = _header("{'descr': '<f4', 'fortran_order': False, 'shape': (9000, 9000), }")
    return _zip((f"{CLIP}.npy", head + bytes(9000 * 9000 * 4)))


def _twice() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of the name
        return _zip((f"{CLIP}.npy", VALID), (f"{CLIP}.npy", VALID))


def command(folder: Path, maps: Path, entries: Any, *more: str, form: str = "vggss") -> str:
    """Run the command in a folder and return what it prints; what it refuses is raised."""
    boxes = folder / "boxes.json"
    boxes.write_text(json.dumps(entries))
    out, err = io.StringIO(), io.StringIO()
    line = [
        "--maps",
        str(maps),
        "--annotations",
        str(boxes),
        "--format",
        form,
        "--protocol",
        "paper",
        "--out",
        str(folder / "out"),
    ]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([*line, "--no-chance", *more])
        except SystemExit as stop:
            status = stop.code
    if status:
        assert not (folder / "out").exists()
        raise RefusedError(err.getvalue().strip().splitlines()[-1])
    return out.getvalue()


def _names() -> Iterator[InputClass]:
    def annotated(folder: Path) -> Iterator[Attempt]:
        (folder / "maps").mkdir()
        for name in BAD_IDS:
            yield Attempt(
                lambda n=name: command(folder, folder / "maps", [{**BOX, "file": n}], "--no-sheet"), "clip id|non-empty"
            )

    yield InputClass("--annotations", "ids that lead out of a folder or name no file", annotated)

    def archived(folder: Path) -> Iterator[Attempt]:
        (folder / "outside.npy").write_bytes(VALID)
        for name in ("../outside", "/etc/passwd", "a\\..\\b", "a\nb", "\x1b[2J"):
            (folder / "maps.npz").write_bytes(_zip((f"{CLIP}.npy", VALID), (f"{name}.npy", VALID)))
            yield Attempt(
                lambda: command(folder, folder / "maps.npz", [BOX], "--no-sheet"), "maps of annotated clips only"
            )

    yield InputClass("--maps", "names in an NPZ that lead out of a folder", archived)

    def listed(folder: Path) -> Iterator[Attempt]:
        _in_folder(".npy")(folder, VALID)
        for content in (b"../outside\n", b"/etc/passwd,x\n", b"\xff\n", b",\n", b"\n", b""):
            (folder / "clips.txt").write_bytes(content)
            yield Attempt(
                lambda: command(folder, folder / "maps", [BOX], "--no-sheet", "--clips", str(folder / "clips.txt")),
                "clips.txt",
            )

    yield InputClass("--clips", "ids that are not annotated, no text, no line", listed)

    def pictures(folder: Path) -> Iterator[Attempt]:
        name = "a$b_{$\\frac"[:6]
        (folder / "maps").mkdir()
        (folder / "maps" / f"{name}.npy").write_bytes(VALID)
        (folder / "frames").mkdir()
        for content in (b"", b"\xff\xd8\xff\xe0" + b"\0" * 40, b"\x89PNG\r\n\x1a\n" + b"\0" * 40, _huge_png()):
            for suffix in (".jpg", ".png"):
                (folder / "frames" / f"{name}{suffix}").write_bytes(content)
            yield Attempt(
                lambda: command(
                    folder, folder / "maps", [{**BOX, "file": name}], "--frames-dir", str(folder / "frames")
                )
            )

    yield InputClass("--frames-dir", "broken pictures, one of 10¹⁰ pixels, ids with signs of formulas", pictures)

    def arguments(folder: Path) -> Iterator[Attempt]:
        _in_folder(".npy")(folder, VALID)
        for more in (
            ["--seed", "9" * 30],
            ["--seed", "x"],
            ["--pictures", "0"],
            ["--protocol", "paper,paper"],
            ["--protocol", "../paper"],
            ["--maps", "/nonexistent"],
            ["--frames-dir", "/nonexistent"],
            ["--layout", "x"],
        ):
            yield Attempt(lambda m=more: command(folder, folder / "maps", [BOX], "--no-sheet", *m), "rror: ")

    yield InputClass("arguments", "huge, unknown, missing", arguments)


def _huge_png() -> bytes:
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return b"\x89PNG\r\n\x1a\n" + chunk


CLASSES = [*_saved_maps(), *_names()]
