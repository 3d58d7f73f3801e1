"""The training example's files: lists, captions, configurations, checkpoints, pictures, sounds, answers of a model."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from avsl.captioning.answers import AnswerError, parse_answer
from avsl.captioning.frames import read_clips
from avsl.captioning.records import Records, read_lines
from avsl.clip_ids import ClipId, Sound
from avsl.config import Config
from avsl.data.folders import read_captions
from avsl.data.music import MusicFolder
from avsl.data.scenes import _read_waveform
from avsl.data.vggsound import VggsoundFolder
from avsl.data.vggsound_list import read_vggsound_list
from avsl.files import read_json, read_picture, read_rows
from avsl.localization.user_files import read_picture as read_upright
from avsl.localization.user_files import read_sound
from avsl.model.checkpoints import open_model, recorded_data
from avsl.model.localizer import Localizer
from avsl.preparation.split_lists import read_music, read_vggsound
from avsl.yaml_files import read_yaml
from PIL import Image

from inputs.readers.annotation_classes import BAD_IDS
from inputs.readers.outcomes import Attempt, Either, InputClass, Reader, mutated, truncated, written

TINY = {
    "image_size": 32,
    "visual_weights": None,
    "visual_widths": [4],
    "visual_depths": [1],
    "audio_weights": None,
    "audio_widths": [4],
    "audio_depths": [1],
    "embedding_dim": 4,
}
CAPTION = {"id": "a", "foreground": ["an image of a cello"], "background": "an image of a chair"}
MUSIC_ID, VGGSOUND_ID = "aaaaaaaaaaa_001_00030", "aaaaaaaaaaa_000030"


def _lines(path: Path) -> Any:
    return list(read_captions(path))


def _vggsound(path: Path) -> Any:
    return list(read_vggsound_list(path))


def _prepared_music(path: Path) -> Any:
    return read_music(path.parent)


def _prepared_vggsound(path: Path) -> Any:
    return read_vggsound(path.parent)


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(
        buffer, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    )
    return buffer.getvalue()


def _wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(200) / 5), 16_000, "PCM_16", format="WAV")
    return buffer.getvalue()


FILES: dict[str, tuple[Reader, str, bytes]] = {
    "captions.jsonl": (
        _lines,
        "captions.jsonl",
        (json.dumps(CAPTION) + "\n" + json.dumps(CAPTION | {"id": "b"}) + "\n").encode(),
    ),
    "captions.failed.jsonl": (read_lines, "captions.failed.jsonl", b'{"id": "a", "reason": "x"}\n{"id": "b"}\n'),
    "vggsound_train.csv": (_vggsound, "vggsound_train.csv", b'a,"race car, auto racing"\nb,playing cello\n'),
    "lists of MUSIC to prepare": (
        _prepared_music,
        "music_solo_train.txt",
        f"{MUSIC_ID},cello\nb{MUSIC_ID[1:]},flute\n".encode(),
    ),
    "vggsound.csv to prepare": (
        _prepared_vggsound,
        "vggsound.csv",
        b"aaaaaaaaaaa,30,playing cello,train\nbbbbbbbbbbb,7,x,test\n",
    ),
    "configuration (YAML)": (
        lambda p: Config.load([str(p)], {}),
        "own.yaml",
        b"epochs: 3\nrate: 1e-4\nvisual_widths: [4, 8]\nsubsets: [solo]\n",
    ),
    "metrics.json of a run": (
        lambda p: read_json(p, "percent"),
        "metrics.json",
        b'{"percent": {"trained": {"solo AP": 61.5}}}',
    ),
    "picture (PNG)": (read_picture, "a.png", _picture()),
    "picture (JPEG) to localize": (read_upright, "a.jpg", _jpeg()),
    "sound of a clip (WAV)": (lambda p: _read_waveform(Sound(p)), "a.wav", _wav()),
    "sound to localize": (read_sound, "b.wav", _wav()),
}


def _written(name: str, contents: Callable[[], Iterator[bytes]], error: str | None, cls: str) -> InputClass:
    reader, file, _ = FILES[name]
    return InputClass(name, cls, written(reader, file, contents, f"{file}|Expected `|configuration key", error))


def _files() -> Iterator[InputClass]:
    for name, (_, _, valid) in FILES.items():
        count = 60 if "sound to" in name else 300
        yield _written(name, lambda v=valid: truncated(v), None, "truncated at every byte")
        yield _written(name, lambda v=valid, n=count: mutated(v, n), None, "random bytes changed, inserted, moved")
        yield _written(name, lambda: iter([b"\xff\xfe\x00", b"\x00" * 50, bytes(range(256))]), None, "no text at all")


def _captions() -> Iterator[InputClass]:
    name = "captions.jsonl"
    wrong: list[Any] = [
        [],
        3,
        None,
        "x",
        {},
        CAPTION | {"id": 3},
        CAPTION | {"id": ["a"]},
        CAPTION | {"foreground": {"a": 1}},
        CAPTION | {"foreground": None},
        CAPTION | {"foreground": [1]},
        CAPTION | {"background": None},
        CAPTION | {"background": "\ud800"},
    ]
    yield _written(
        name,
        lambda: (json.dumps(w).encode() + b"\n" for w in wrong),
        "in line 1 of",
        "values of other types, half a surrogate pair",
    )
    yield _written(
        name,
        lambda: iter([b'{"id": ' + b"[" * 100_000, b'{"id": ' + b"1" * 5000 + b"}"]),
        "in line 1 of",
        "nested 100,000 deep, an integer of 5,000 digits",
    )
    yield _written(name, lambda: iter([2 * (json.dumps(CAPTION) + "\n").encode()]), "each clip once", "a clip twice")

    def records(folder: Path) -> Iterator[Attempt]:
        path = folder / "captions.jsonl"
        origin = {"model": "m", "prompt_sha256": "x", "generation": {}}
        provenance = path.with_name("captions.provenance.json")
        for captions, text in (
            (b'{"id": "a"}\n', None),
            (b"[]\n", None),
            (b'{"id": ["a"]}\n', None),
            (json.dumps(CAPTION).encode() + b"\n", "[]"),
            (json.dumps(CAPTION).encode() + b"\n", '{"origins": 3}'),
            (json.dumps(CAPTION).encode() + b"\n", "{"),
            (json.dumps(CAPTION).encode() + b"\n", '{"origins": [3]}'),
        ):
            path.write_bytes(captions)
            provenance.write_text(text or json.dumps({"origins": [origin]}))
            yield Attempt(lambda: Records(path, origin).__enter__(), "captions")

    yield InputClass("captions to go on with", "malformed lines and provenance", records)

    def answers(_: Path) -> Iterator[Either]:
        for text in (
            "",
            "{" * 100_000,
            '{"a":' * 30_000,
            "<think>" * 20_000,
            "[" * 100_000,
            '{"foreground": ["a"], "background": "b"}' * 2 + "}",
            "x" * 300_000,
            '{"foreground": "\ud800", "background": 3}',
            '{"foreground": ["a", "b"], "background": "c"}',
        ):
            yield Either(lambda t=text: _answered(t), "")

    yield InputClass("answer of a model", "nothing, nested without end, repeated, long, half a surrogate pair", answers)


def _answered(text: str) -> Any:
    try:
        captions = parse_answer(text, ["cello"])
    except AnswerError as error:
        raise ValueError(str(error)[:300]) from error
    return captions


def _lists() -> Iterator[InputClass]:
    bad = [i.encode("utf-8", "surrogatepass") for i in BAD_IDS if i not in ("", "a\nb")]
    yield _written(
        "vggsound_train.csv",
        lambda: (i + b",cello\n" for i in bad),
        "path separators|at most 200 bytes|lines of text",
        "ids that lead out of a folder or name no file",
    )
    yield _written(
        "vggsound_train.csv",
        lambda: iter([b'"' + b"x" * 10**6, b"a\x00b,c\n", b'a,"b\nc"\n', b"a,x\na,y\n", b"a\n", b",x\n"]),
        "vggsound_train",
        "an open quote, NUL, line breaks in a class, a clip twice",
    )
    for name, line in (
        ("lists of MUSIC to prepare", b"%s,cello\n"),
        ("vggsound.csv to prepare", b"%s,30,cello,train\n"),
    ):
        yield _written(
            name,
            lambda line=line: (line % i for i in bad),
            FILES[name][1].replace(".", r"\."),
            "ids that lead out of a folder or name no file",
        )
    digits = (b"9" * 5000, "٣".encode(), b"-1", b"1e3", b"0x1", b"1_0")
    yield _written(
        "vggsound.csv to prepare",
        lambda: (b"aaaaaaaaaaa," + d + b",x,train\n" for d in digits),
        "line 1 of",
        "start seconds of 5,000 digits and other writing",
    )

    def ids(_: Path) -> Iterator[Attempt]:
        for name in (
            *BAD_IDS,
            "aaaaaaaaaaa_" + "9" * 5000 + "_00030",
            "aaaaaaaaaaa_001_" + "9" * 400,
            "../../../../_000030",
        ):
            yield Attempt(lambda n=name: ClipId.parse(n), "Expected `name` to be an id")

    yield InputClass("ClipId.parse", "paths, control characters, numbers of 5,000 digits", ids)

    def folders(folder: Path) -> Iterator[Attempt]:
        for part in ("frames", "audio", "metadata"):
            (folder / part).mkdir()
        (folder / "outside.jpg").write_bytes(_jpeg())
        metadata = folder / "metadata"
        (metadata / "captions.jsonl").write_text(
            "".join(json.dumps(CAPTION | {"id": i}) + "\n" for i in ("../outside", "/etc/passwd", "a\\b"))
        )
        for name in ("../outside", "/etc/passwd", "a\\b"):
            (metadata / "music_solo_train.txt").write_text(f"{name},cello\n")
            (metadata / "vggsound_train.csv").write_text(f"{name},cello\n")
            yield Attempt(lambda: MusicFolder(folder).training_pool("solo"), "path separators")
            yield Attempt(lambda: VggsoundFolder(folder).training_pool("single"), "path separators")
            yield Attempt(lambda: read_clips(folder, ["vggsound_train.csv"]), "path separators")
            yield Attempt(lambda: read_clips(folder, ["music_solo_train.txt"]), "path separators")

    yield InputClass("training and captioning", "lists with ids that lead out of the folder", folders)
    yield InputClass(
        "read_rows", "a folder for a file", lambda folder: [Attempt(lambda: list(read_rows(folder)), "directory")]
    )


def _yaml() -> Iterator[InputClass]:
    name = "configuration (YAML)"
    laughs = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
    )
    yield _written(
        name,
        lambda: iter([laughs.encode(), b"a: &a [*a]\n", b"rate: *x\n"]),
        "alias",
        "aliases that stand for each other (billion laughs)",
    )
    yield _written(
        name,
        lambda: iter([b"[" * 60_000, b"a: " + b"{a: " * 9000, b"- " * 9000]),
        "nested|mapping|sequence|key: value",
        "nested without end",
    )
    yield _written(name, lambda: iter([b"#" * (1 << 17)]), "at most 65,536 bytes", "larger than 64 KiB")
    objects = (
        b"rate: !!python/object/apply:os.system [id]",
        b"!!python/object/new:str {}",
        b"rate: !!python/name:os.system",
        b"rate: !x 3",
    )
    yield _written(name, lambda: iter(objects), "key: value", "objects with code")
    yield _written(
        name,
        lambda: iter(
            [b"rate: 1\nrate: 2\n", b"1: 2\n", b"true: 1\n", b"? [a]\n: 1\n", b"null: 1\n", b"<<: {rate: 1}\n"]
        ),
        "key",
        "a key twice, keys that are no text, merges",
    )
    values = (
        "rate: .nan",
        "rate: .inf",
        "rate: 1e999",
        f"rate: 1{'0' * 400}",
        "rate: true",
        "rate: [1]",
        "rate: 2024-01-01",
        "epochs: 1.5",
        f"epochs: {'9' * 30}",
        f"epochs: {'9' * 5000}",
        "image_size: 1000000000",
        "epochs: yes",
        "seed: null",
        "visual_widths: 3",
        "visual_widths: [[4]]",
        "subsets: solo",
        "dataset: ../music",
        "epoch: 3",
        "rate: 2024-99-99",
    )
    yield _written(
        name,
        lambda: (v.encode() for v in values),
        "Expected|Unknown configuration key",
        "NaN, infinite, huge and other wrong values",
    )

    def bases(folder: Path) -> Iterator[Attempt]:
        for own, other in (
            ("base: own.yaml", ""),
            ("base: other.yaml", "base: own.yaml"),
            ("base: none.yaml", ""),
            ("base: [a]", ""),
            ("base: /etc/passwd", ""),
        ):
            (folder / "own.yaml").write_text(own.replace(": o", f": {folder}/o"))
            (folder / "other.yaml").write_text(other.replace(": o", f": {folder}/o"))
            yield Attempt(lambda: Config.load([str(folder / "own.yaml")], {}), "own base|Expected `config`")

    yield InputClass(name, "files that are their own base, or that are not there", bases)

    def run(folder: Path) -> Iterator[Attempt]:
        (folder / "checkpoints").mkdir()
        for text in ("data: [1]", "- 1", "data: &a [*a]"):
            (folder / "config.yaml").write_text(text)
            yield Attempt(lambda: recorded_data(folder), "config.yaml")

    yield InputClass("config.yaml of a run", "other values for the data folder", run)
    yield InputClass(
        "read_yaml",
        "an empty file",
        lambda folder: [
            Attempt(
                lambda: ((folder / "a.yaml").write_text("") and None) or read_yaml(folder / "a.yaml"),
                check=lambda r: r == {},
            )
        ],
    )


class _Code:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('code of a checkpoint was run')",))


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _checkpoints() -> Iterator[InputClass]:
    logging.getLogger("lightning").setLevel(logging.ERROR)

    def model() -> dict[str, Any]:
        with torch.random.fork_rng():
            made = Localizer(Config.from_dict(TINY).as_dict(), 6)
        return {"state_dict": made.state_dict(), "hyper_parameters": dict(made.hparams)}

    def opened(folder: Path, content: bytes) -> Callable[[], Any]:
        (folder / "a.ckpt").write_bytes(content)
        return lambda: open_model(folder / "a.ckpt", torch.device("cpu"))

    def code(folder: Path) -> Iterator[Attempt]:
        whole = model()
        for content in (
            pickle.dumps(_Code()),
            _saved(_Code()),
            _saved(whole | {"callbacks": _Code()}),
            _saved(whole | {"hyper_parameters": _Code()}),
            _saved({"state_dict": {"a": np.float64}, "hyper_parameters": {}}),
        ):
            yield Attempt(
                opened(folder, content), "a.ckpt to be a checkpoint of this example, but it can't be read as weights"
            )

    def other(folder: Path) -> Iterator[Attempt]:
        whole = model()
        given = whole["hyper_parameters"]
        for change in (
            {"hyper_parameters": 3},
            {"hyper_parameters": {}},
            {"hyper_parameters": given | {"config": []}},
            {"hyper_parameters": given | {"config": {"rate": float("nan")}}},
            {"hyper_parameters": given | {"config": {1: 2}}},
            {"hyper_parameters": given | {"text_features": "x"}},
            {"hyper_parameters": given | {"text_features": 10**30}},
            {"hyper_parameters": given | {"architectures": {"visual": 3, "audio": None}}},
            {"state_dict": 3},
            {"state_dict": {}},
            {"state_dict": {k: v[:0] if v.ndim else v for k, v in whole["state_dict"].items()}},
        ):
            yield Attempt(opened(folder, _saved(whole | change)), "a.ckpt to be a checkpoint of this example")
        for value in (3, [], {}, torch.zeros(2), {"state_dict": {}}):
            yield Attempt(opened(folder, _saved(value)), "a.ckpt to be a checkpoint of this example")

    def cut(folder: Path) -> Iterator[Attempt]:
        content = _saved(model())
        for end in range(0, len(content), len(content) // 40):
            yield Attempt(opened(folder, content[:end]), "a.ckpt to be a checkpoint of this example")
        for changed in mutated(content[:2000], 20):
            yield Attempt(opened(folder, changed), "a.ckpt to be a checkpoint of this example")

    yield InputClass("checkpoint", "code in a pickle, in any part of it", code)
    yield InputClass("checkpoint", "weights and configurations of other programs, wrong values", other)
    yield InputClass("checkpoint", "truncated, random bytes changed", cut)
    yield InputClass(
        "checkpoint", "whole", lambda folder: [Attempt(opened(folder, _saved(model())), check=lambda m: not m.training)]
    )


CLASSES = [*_files(), *_captions(), *_lists(), *_yaml(), *_checkpoints()]
