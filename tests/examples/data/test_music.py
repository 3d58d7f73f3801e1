"""The reader of MUSIC folders, and its errors for broken ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from avsl.data.folders import Clip, all_captions
from avsl.data.loading import Collate
from avsl.data.music import MusicFolder
from avsl.data.quality import with_quality
from avsl.data.scenes import Scenes
from avsl.model.caption_features import CaptionTable
from PIL import Image


def scenes(root: Path, **options) -> Scenes:
    clips = MusicFolder(root).training_pool("solo").clips
    return Scenes(root, [clip.name for clip in clips], 16, **options)


def test_scenes(music: Path) -> None:
    folder = MusicFolder(music)
    cello, flute = "an image of a person playing the cello", "an image of a person playing the flute"
    assert folder.training_pool("solo") == (
        [
            Clip("a", ("cello",), (cello,), "an image of a chair"),
            Clip("b", ("flute",), (flute,), "an image of a silent cello"),  # a bare string in captions.jsonl
        ],
        1,
    )
    clip = Clip("c", ("cello", "flute"), (cello, flute), "an image of a chair")
    assert folder.training_pool("duet") == ([clip], 1)
    left, right = (0.0, 0.0, 0.375, 1.0), (0.625, 0.0, 1.0, 1.0)
    assert folder.test_scenes("solo") == ([Clip("d", ("cello",))], [(0,)], [((left,),)])
    assert folder.test_scenes("duet") == ([Clip("e", ("cello", "flute"))], [(0,)], [((left,), (right,))])


@pytest.mark.parametrize("in_memory", [False, True])
def test_examples(music: Path, in_memory: bool) -> None:
    Image.new("RGB", (40, 20), (255, 0, 0)).save(music / "frames" / "b.jpg")
    data = scenes(music, in_memory=in_memory)
    assert len(data) == 2
    for _ in range(2):
        frame, waveform, scene = data[1]
        assert (frame.shape, frame.dtype, scene) == ((3, 16, 16), torch.uint8, (1,))
        assert frame.float().mean((1, 2)).tolist() == pytest.approx([254, 0, 0], abs=2)
        assert (waveform.shape, waveform.dtype) == ((48_000,), torch.float32)
        written, _ = soundfile.read(music / "audio" / "b.wav")
        np.testing.assert_allclose(waveform, written, atol=1e-4)
    (music / "frames" / "b.jpg").unlink()
    if in_memory:
        assert data[1].clips == (1,)
    else:
        with pytest.raises(FileNotFoundError):
            data[1]


@pytest.mark.parametrize("folder", ["frames", "audio", "metadata"])
def test_a_missing_folder(music: Path, folder: str) -> None:
    shutil.rmtree(music / folder)
    with pytest.raises(FileNotFoundError, match=rf"frames/ .<id>\.jpg., audio/ .* lacks {folder}/$"):
        MusicFolder(music)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("captions.jsonl", lambda f: f.training_pool("solo")),
        ("music_duet_train.txt", lambda f: f.training_pool("duet")),
        ("music_solo_test.csv", lambda f: f.test_scenes("solo")),
        ("music_duet.json", lambda f: f.test_scenes("duet")),
    ],
)
def test_a_missing_list(music: Path, name: str, read) -> None:
    (music / "metadata" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}, (one of the public lists|but there is no such file)"):
        read(MusicFolder(music))


@pytest.mark.parametrize("name", ["frames/b.jpg", "audio/b.wav"])
def test_a_missing_frame_or_sound(music: Path, name: str) -> None:
    (music / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of 4 listed files are missing, first .*{name}") as error:
        scenes(music)
    command = f"python examples/prepare_music.py --videos DIR --lists DIR --out {music}"
    assert f"Create them with: {command}" in str(error.value)


def test_a_test_clip_without_boxes(music: Path) -> None:
    (music / "metadata" / "music_solo_test.csv").write_text("d,cello\nz,cello\n")
    with pytest.raises(ValueError, match=r"'z' of music_solo_test\.csv is not in music_solo\.json"):
        MusicFolder(music).test_scenes("solo")


def write_captions(root: Path, *entries: dict | str) -> None:
    lines = [e if isinstance(e, str) else json.dumps(e) for e in entries]
    (root / "metadata" / "captions.jsonl").write_text("\n".join(lines) + "\n")


A = {"id": "a", "foreground": ["one"], "background": "none"}
B = {"id": "b", "foreground": ["one"], "background": "none"}


def test_a_missing_caption(music: Path) -> None:
    write_captions(music, A)
    with pytest.raises(
        ValueError,
        match=r"Clip 'b' of music_solo_train\.txt has no line in .*Create it with: python examples/gen",
    ):
        scenes(music)


def test_a_wrong_number_of_captions(music: Path) -> None:
    write_captions(music, A, B | {"foreground": ["one", "two", "three"]})
    with pytest.raises(ValueError, match=r"Expected 1 foreground captions for clip 'b' .flute., .* has 3"):
        scenes(music)


@pytest.mark.parametrize(
    "line",
    ['{"id": "b", "fore', "[]", "", B | {"foreground": [1]}, B | {"background": 2}],
)
def test_a_malformed_line(music: Path, line: dict | str) -> None:
    write_captions(music, A, line, B)
    with pytest.raises(ValueError, match=r"in line 2 of .*captions\.jsonl, but got"):
        scenes(music)


def test_a_sound_at_another_rate(music: Path) -> None:
    soundfile.write(music / "audio" / "a.wav", np.zeros(100), 22_050)
    with pytest.raises(ValueError, match=r"a\.wav at 16000 Hz, but got 22050 Hz"):
        scenes(music)[0]


def test_an_empty_sound(music: Path) -> None:
    soundfile.write(music / "audio" / "a.wav", np.zeros(0), 16_000)
    with pytest.raises(ValueError, match=r"a\.wav to hold sound, but it is empty"):
        scenes(music)[0]


def test_a_short_sound_is_repeated(music: Path) -> None:
    samples = np.arange(1, 20_001, dtype=np.int16)
    soundfile.write(music / "audio" / "a.wav", samples, 16_000)
    waveform = scenes(music)[0].waveform * 32768
    assert torch.equal(waveform, torch.from_numpy(np.tile(samples, 3)[:48_000]).float())


def test_the_center_of_a_long_sound_in_stereo(music: Path) -> None:
    samples = np.arange(50_000).astype(np.int16)
    soundfile.write(music / "audio" / "a.wav", np.stack([samples, samples], axis=1), 16_000)
    waveform = scenes(music)[0].waveform * 32768
    assert torch.equal(waveform, torch.from_numpy(samples[1000:49_000]).float())


def test_batches_hold_the_features_of_their_captions(music: Path) -> None:
    folder = MusicFolder(music)
    clips = [*folder.training_pool("solo").clips, *folder.training_pool("duet").clips]
    texts = sorted(set(all_captions(clips)))
    table = CaptionTable(torch.arange(len(texts)).float()[:, None], {t: i for i, t in enumerate(texts)})
    data = Scenes(music, [c.name for c in clips], 16)
    batch = Collate(clips, table)([data[2], data[1]])
    assert batch.frames.shape == (2, 3, 16, 16)
    assert batch.waveforms.shape == (2, 48_000)
    assert batch.source_mask.tolist() == [[True, True], [True, False]]
    found = [[texts[int(v)] for v in row[mask]] for row, mask in zip(batch.foreground, batch.source_mask, strict=True)]
    assert found == [list(clips[2].foreground), list(clips[1].foreground)]
    assert [texts[int(v)] for v in batch.background] == [clips[2].background, clips[1].background]
    assert torch.equal(batch.waveforms[1], data[1].waveform)


def test_a_mixture(music: Path) -> None:
    """Frames side by side, the mean of the sounds, all foreground captions, the mean background."""
    folder = MusicFolder(music)
    clips = [*folder.training_pool("solo").clips, *folder.training_pool("duet").clips]
    texts = sorted(set(all_captions(clips)))
    table = CaptionTable(torch.arange(len(texts)).float()[:, None], {t: i for i, t in enumerate(texts)})
    data = Scenes(music, [c.name for c in clips], 16)
    mixture, parts = data[1, 2], (data[1], data[2])
    assert mixture.frame.shape == (3, 16, 32)
    assert torch.equal(mixture.frame, torch.cat([p.frame for p in parts], 2))
    torch.testing.assert_close(mixture.waveform, (parts[0].waveform + parts[1].waveform) / 2)
    batch = Collate(clips, table, 2)([mixture, data[0, 1]])
    assert batch.foreground.shape == (2, 4, 1)
    assert batch.source_mask.tolist() == [[True, True, True, False], [True, True, False, False]]
    found = [[texts[int(v)] for v in row[mask]] for row, mask in zip(batch.foreground, batch.source_mask, strict=True)]
    assert found[0] == [*clips[1].foreground, *clips[2].foreground]
    rows = [texts.index(clips[i].background) for i in (1, 2)]
    assert batch.background[0].item() == sum(rows) / 2


def test_clips_without_a_background_caption(music: Path) -> None:
    """Null or missing: no caption to encode, a mask of False, and mixtures take the mean of the others."""
    listed = MusicFolder(music)
    old = [*listed.training_pool("solo").clips, *listed.training_pool("duet").clips]
    entries = [{"id": c.name, "foreground": list(c.foreground), "background": c.background} for c in old]
    entries[0]["background"] = None
    del entries[2]["background"]
    write_captions(music, *entries)
    folder = MusicFolder(music)
    clips = [*folder.training_pool("solo").clips, *folder.training_pool("duet").clips]
    assert [c.background for c in clips] == [None, old[1].background, None]
    assert [c.background for c in with_quality(clips, "class", 0)] == [None, "an image of a background", None]
    texts = sorted(set(all_captions(clips)))
    table = CaptionTable(torch.arange(1.0, len(texts) + 1)[:, None], {t: i for i, t in enumerate(texts)})
    data = Scenes(music, [c.name for c in clips], 16)
    feature = texts.index(old[1].background) + 1
    for examples, described in (([data[0], data[1]], [False, True]), ([data[0, 1], data[0, 2]], [True, False])):
        batch = Collate(clips, table, 2)(examples)
        assert batch.background_mask.tolist() == described
        assert batch.background[:, 0].tolist() == [feature * value for value in described]
