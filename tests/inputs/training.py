"""The training example's files: lists, captions, configurations, checkpoints, pictures, sounds, a model's answers."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Iterator
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
from avsl.data.vggsound import VggsoundFolder
from avsl.data.vggsound_list import read_vggsound_list
from avsl.files import read_json, read_rows
from avsl.localization.user_files import read_sound
from avsl.model.checkpoints import open_model
from avsl.model.localizer import Localizer
from avsl.model.locations import recorded_data
from avsl.pictures import read_picture
from avsl.preparation.split_lists import read_music, read_vggsound
from avsl.sounds import read_clip
from avsl.yaml_files import read_yaml
from PIL import Image

from inputs.annotations import BAD_IDS, BAD_IDS_IN_LINES, OUTSIDE
from inputs.cases import Case, FileRow, Format, InputClass, changed_bytes, file_cases, mutated

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


def caption_line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _picture(format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, format_, **options)
    return buffer.getvalue()


def _wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(200) / 5), 16_000, "PCM_16", format="WAV")
    return buffer.getvalue()


PNG, WAV = _picture("PNG"), _wav()
ROTATED_JPEG = _picture("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
FILES = {
    "captions.jsonl": Format(
        lambda path: list(read_captions(path)),
        "captions.jsonl",
        caption_line(CAPTION) + caption_line(CAPTION | {"id": "b"}),
    ),
    "captions.failed.jsonl": Format(read_lines, "captions.failed.jsonl", b'{"id": "a", "reason": "x"}\n{"id": "b"}\n'),
    "vggsound_train.csv": Format(
        lambda path: list(read_vggsound_list(path)),
        "vggsound_train.csv",
        b'a,"race car, auto racing"\nb,playing cello\n',
    ),
    "lists of MUSIC to prepare": Format(
        lambda path: read_music(path.parent),
        "music_solo_train.txt",
        f"{MUSIC_ID},cello\nb{MUSIC_ID[1:]},flute\n".encode(),
    ),
    "vggsound.csv to prepare": Format(
        lambda path: read_vggsound(path.parent),
        "vggsound.csv",
        b"aaaaaaaaaaa,30,playing cello,train\nbbbbbbbbbbb,7,x,test\n",
    ),
    "configuration (YAML)": Format(
        lambda path: Config.load([str(path)], {}),
        "own.yaml",
        b"epochs: 3\nrate: 1e-4\nvisual_widths: [4, 8]\nsubsets: [solo]\n",
    ),
    "metrics.json of a run": Format(
        lambda path: read_json(path, "percent"), "metrics.json", b'{"percent": {"trained": {"solo AP": 61.5}}}'
    ),
    "picture (PNG)": Format(read_picture, "a.png", PNG),
    "picture (JPEG) to localize": Format(read_picture, "a.jpg", ROTATED_JPEG),
    "sound of a clip (WAV)": Format(lambda path: read_clip(Sound(path)), "a.wav", WAV),
    "sound to localize": Format(read_sound, "b.wav", WAV),
}


def files(name: str, *rows: FileRow) -> Iterator[InputClass]:
    allowed = f"{FILES[name].file}|Expected `|configuration key"
    for row in rows:
        yield InputClass(name, row.name, file_cases(FILES[name], row, allowed))


NO_TEXT = FileRow("no text at all", [b"\xff\xfe\x00", b"\x00" * 50, bytes(range(256))], None)
CAPTION_ROWS = (
    FileRow(
        "values of other types, half a surrogate pair",
        [
            caption_line(value)
            for value in (
                *([], 3, None, "x", {}),
                *(CAPTION | {"id": value} for value in (3, ["a"])),
                *(CAPTION | {"foreground": value} for value in ({"a": 1}, None, [1])),
                *(CAPTION | {"background": value} for value in (3, ["a"], "\ud800")),
            )
        ],
        "in line 1 of",
    ),
    FileRow(
        "nested 100,000 deep, an integer of 5,000 digits",
        [b'{"id": ' + b"[" * 100_000, b'{"id": ' + b"1" * 5000 + b"}"],
        "in line 1 of",
    ),
    FileRow("a clip twice", [2 * caption_line(CAPTION)], "each clip once"),
)
VGGSOUND_ROWS = (
    FileRow(
        OUTSIDE,
        [name + b",cello\n" for name in BAD_IDS_IN_LINES],
        "path separators|at most 200 bytes|lines of text",
    ),
    FileRow(
        "an open quote, NUL, line breaks in a class, a clip twice",
        [b'"' + b"x" * 10**6, b"a\x00b,c\n", b'a,"b\nc"\n', b"a,x\na,y\n", b"a\n", b",x\n"],
        "vggsound_train",
    ),
)
MUSIC_PREPARED_ROWS = (FileRow(OUTSIDE, [name + b",cello\n" for name in BAD_IDS_IN_LINES], r"music_solo_train\.txt"),)
VGGSOUND_PREPARED_ROWS = (
    FileRow(OUTSIDE, [name + b",30,cello,train\n" for name in BAD_IDS_IN_LINES], r"vggsound\.csv"),
    FileRow(
        "start seconds of 5,000 digits and other writing",
        [
            b"aaaaaaaaaaa," + start + b",x,train\n"
            for start in (b"9" * 5000, "٣".encode(), b"-1", b"1e3", b"0x1", b"1_0")
        ],
        "line 1 of",
    ),
)

BILLION_LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)
WRONG_VALUES = (
    *("rate: .nan", "rate: .inf", "rate: 1e999", f"rate: 1{'0' * 400}", "rate: true", "rate: [1]"),
    *("rate: 2024-01-01", "rate: 2024-99-99"),
    *("epochs: 1.5", f"epochs: {'9' * 30}", f"epochs: {'9' * 5000}", "epochs: yes", "epoch: 3"),
    *("image_size: 1000000000", "seed: null", "visual_widths: 3", "visual_widths: [[4]]"),
    *("subsets: solo", "dataset: ../music"),
)
YAML_ROWS = (
    FileRow(
        "aliases that stand for each other (billion laughs)",
        [BILLION_LAUGHS.encode(), b"a: &a [*a]\n", b"rate: *x\n"],
        "alias",
    ),
    FileRow(
        "nested without end",
        [b"[" * 60_000, b"a: " + b"{a: " * 9000, b"- " * 9000],
        "nested|mapping|sequence|key: value",
    ),
    FileRow("larger than 64 KiB", [b"#" * (1 << 17)], "at most 65,536 bytes"),
    FileRow(
        "objects with code",
        [
            b"rate: !!python/object/apply:os.system [id]",
            b"!!python/object/new:str {}",
            b"rate: !!python/name:os.system",
            b"rate: !x 3",
        ],
        "key: value",
    ),
    FileRow(
        "a key twice, keys that are no text, merges",
        [b"rate: 1\nrate: 2\n", b"1: 2\n", b"true: 1\n", b"? [a]\n: 1\n", b"null: 1\n", b"<<: {rate: 1}\n"],
        "key",
    ),
    FileRow(
        "NaN, infinite, huge and other wrong values",
        [value.encode() for value in WRONG_VALUES],
        "Expected|Unknown configuration key",
    ),
)
ROWS = {
    "captions.jsonl": CAPTION_ROWS,
    "vggsound_train.csv": VGGSOUND_ROWS,
    "lists of MUSIC to prepare": MUSIC_PREPARED_ROWS,
    "vggsound.csv to prepare": VGGSOUND_PREPARED_ROWS,
    "configuration (YAML)": YAML_ROWS,
}


def _files() -> Iterator[InputClass]:
    for name, format_ in FILES.items():
        changes = 60 if "sound to" in name else 300
        yield from files(name, *changed_bytes(format_.valid, changes), NO_TEXT)
    for name, rows in ROWS.items():
        yield from files(name, *rows)


def _records(folder: Path) -> Iterator[Case]:
    path = folder / "captions.jsonl"
    origin = {"model": "m", "prompt_sha256": "x", "generation": {}}
    whole, line = json.dumps({"origins": [origin]}), caption_line(CAPTION)
    for captions, provenance in (
        *((captions, whole) for captions in (b'{"id": "a"}\n', b"[]\n", b'{"id": ["a"]}\n')),
        *((line, provenance) for provenance in ("[]", '{"origins": 3}', "{", '{"origins": [3]}')),
    ):
        path.write_bytes(captions)
        path.with_name("captions.provenance.json").write_text(provenance)
        yield Case(lambda: Records(path, origin).__enter__(), "captions")


ANSWERS = (
    *("", "{" * 100_000, '{"a":' * 30_000, "<think>" * 20_000, "[" * 100_000, "x" * 300_000),
    '{"foreground": ["a"], "background": "b"}' * 2 + "}",
    '{"foreground": "\ud800", "background": 3}',
    '{"foreground": ["a", "b"], "background": "c"}',
)


def _answers(_: Path) -> Iterator[Case]:
    def parsed(text: str) -> Any:
        try:
            return parse_answer(text, ["cello"])
        except AnswerError as error:
            raise ValueError(str(error)[:300]) from error

    for text in ANSWERS:
        yield Case(lambda text=text: parsed(text), "", may_succeed=True)


def _clip_ids(_: Path) -> Iterator[Case]:
    numbers = ("aaaaaaaaaaa_" + "9" * 5000 + "_00030", "aaaaaaaaaaa_001_" + "9" * 400)
    for name in (*BAD_IDS, *numbers, "../../../../_000030"):
        yield Case(lambda name=name: ClipId.parse(name), "Expected `name` to be an id")


def _folders(folder: Path) -> Iterator[Case]:
    for part in ("frames", "audio", "metadata"):
        (folder / part).mkdir()
    (folder / "outside.jpg").write_bytes(ROTATED_JPEG)
    metadata = folder / "metadata"
    names = ("../outside", "/etc/passwd", "a\\b")
    (metadata / "captions.jsonl").write_bytes(b"".join(caption_line(CAPTION | {"id": name}) for name in names))
    for name in names:
        (metadata / "music_solo_train.txt").write_text(f"{name},cello\n")
        (metadata / "vggsound_train.csv").write_text(f"{name},cello\n")
        yield Case(lambda: MusicFolder(folder).training_pool("solo"), "path separators")
        yield Case(lambda: VggsoundFolder(folder).training_pool("single"), "path separators")
        yield Case(lambda: read_clips(folder, ["vggsound_train.csv"]), "path separators")
        yield Case(lambda: read_clips(folder, ["music_solo_train.txt"]), "path separators")


def _folder_as_file(folder: Path) -> Iterator[Case]:
    yield Case(lambda: list(read_rows(folder)), "directory")


def _bases(folder: Path) -> Iterator[Case]:
    for own, other in (
        ("base: own.yaml", ""),
        ("base: other.yaml", "base: own.yaml"),
        *((own, "") for own in ("base: none.yaml", "base: [a]", "base: /etc/passwd")),
    ):
        (folder / "own.yaml").write_text(own.replace(": o", f": {folder}/o"))
        (folder / "other.yaml").write_text(other.replace(": o", f": {folder}/o"))
        yield Case(lambda: Config.load([str(folder / "own.yaml")], {}), "own base|Expected `config`")


def _config_of_run(folder: Path) -> Iterator[Case]:
    (folder / "checkpoints").mkdir()
    for text in ("data: [1]", "- 1", "data: &a [*a]"):
        (folder / "config.yaml").write_text(text)
        yield Case(lambda: recorded_data(folder), "config.yaml")


def _empty_yaml(folder: Path) -> Iterator[Case]:
    (folder / "a.yaml").write_text("")
    yield Case(lambda: read_yaml(folder / "a.yaml"), check=lambda values: values == {})


class Code:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('code of a checkpoint was run')",))


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def checkpoint() -> dict[str, Any]:
    logging.getLogger("lightning").setLevel(logging.ERROR)
    with torch.random.fork_rng():
        model = Localizer(Config.from_dict(TINY).as_dict(), 6)
    return {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}


def codes() -> Iterator[bytes]:
    whole = checkpoint()
    yield pickle.dumps(Code())
    yield saved(Code())
    yield saved(whole | {"callbacks": Code()})
    yield saved(whole | {"hyper_parameters": Code()})
    yield saved({"state_dict": {"a": np.float64}, "hyper_parameters": {}})


def other_programs() -> Iterator[bytes]:
    whole = checkpoint()
    options = whole["hyper_parameters"]
    for change in (
        {"config": []},
        {"config": {"rate": float("nan")}},
        {"config": {1: 2}},
        {"text_features": "x"},
        {"text_features": 10**30},
        {"architectures": {"visual": 3, "audio": None}},
    ):
        yield saved(whole | {"hyper_parameters": options | change})
    without_rows = {name: value[:0] if value.ndim else value for name, value in whole["state_dict"].items()}
    for key, values in (("hyper_parameters", (3, {})), ("state_dict", (3, {}, without_rows))):
        yield from (saved(whole | {key: value}) for value in values)
    yield from map(saved, (3, [], {}, torch.zeros(2), {"state_dict": {}}))


def damaged() -> Iterator[bytes]:
    content = saved(checkpoint())
    for end in range(0, len(content), len(content) // 40):
        yield content[:end]
    yield from mutated(content[:2000], 20)


CHECKPOINT = Format(lambda path: open_model(path, torch.device("cpu")), "a.ckpt", b"")
REFUSED = "a.ckpt to be a checkpoint of this example"
CHECKPOINT_ROWS = (
    FileRow("code in a pickle, in any part of it", codes, f"{REFUSED}, but it can't be read as weights"),
    FileRow("weights and configurations of other programs, wrong values", other_programs, REFUSED),
    FileRow("truncated, random bytes changed", damaged, REFUSED),
)


def _whole_checkpoint(folder: Path) -> Iterator[Case]:
    (folder / "a.ckpt").write_bytes(saved(checkpoint()))
    yield Case(lambda: CHECKPOINT.reader(folder / "a.ckpt"), check=lambda model: not model.training)


CLASSES = [
    *_files(),
    InputClass("captions to resume", "malformed lines and provenance", _records),
    InputClass("answer of a model", "nothing, nested without end, repeated, long, half a surrogate pair", _answers),
    InputClass("ClipId.parse", "paths, control characters, numbers of 5,000 digits", _clip_ids),
    InputClass("training and captioning", "lists with ids that lead out of the folder", _folders),
    InputClass("read_rows", "a folder for a file", _folder_as_file),
    InputClass("configuration (YAML)", "files that are their own base, or that are not there", _bases),
    InputClass("config.yaml of a run", "other values for the data folder", _config_of_run),
    InputClass("read_yaml", "an empty file", _empty_yaml),
    *(InputClass("checkpoint", row.name, file_cases(CHECKPOINT, row, REFUSED)) for row in CHECKPOINT_ROWS),
    InputClass("checkpoint", "whole", _whole_checkpoint),
]
