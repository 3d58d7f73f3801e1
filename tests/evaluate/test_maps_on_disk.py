"""Folders and archives of maps: what is taken for a map, and what messages say of everything else."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from sslosses.evaluate import main

CLIPS = ["a_000030", "b_000030", "c_000030"]
MAPS = {clip: np.random.default_rng(0).random((4, 4), np.float32) for clip in CLIPS}


@pytest.fixture
def vggss(tmp_path):
    path = tmp_path / "vggss.json"
    path.write_text(json.dumps([{"file": c, "class": "bird", "bbox": [[0.1, 0.2, 0.6, 0.9]]} for c in CLIPS]))
    return path


def score(vggss, maps, *more):
    line = ["--maps", maps, "--annotations", vggss, "--out", vggss.parent / "out", *more]
    return main([*map(str, line), "--format", "vggss", "--protocol", "paper", "--no-chance", "--no-sheet"])


def refused(capsys, *parts):
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in parts:
        assert part in captured.err
    return captured.err


def folder_of(tmp_path, suffix=".npy"):
    folder = tmp_path / "maps"
    folder.mkdir()
    for clip, array in MAPS.items():
        with (folder / f"{clip}{suffix}").open("wb") as file:
            np.save(file, array)
    return folder


def test_hidden_files_and_suffixes_in_upper_case(tmp_path, vggss, capsys):
    folder = folder_of(tmp_path, ".NPY")
    for clip in CLIPS:
        (folder / f"._{clip}.npy").write_bytes(b"\0\5\x16\7 of macOS")
    (folder / ".DS_Store").write_bytes(b"\0")
    assert score(vggss, folder) == 0
    assert "3 entries of 3 videos (effectively 3.0), 3 samples" in capsys.readouterr().out
    np.save(folder / f"{CLIPS[0]}.npy", MAPS[CLIPS[0]])
    assert score(vggss, folder) == 2
    refused(capsys, f"{CLIPS[0]} has {CLIPS[0]}.NPY and {CLIPS[0]}.npy")


def test_hidden_members_of_an_archive(tmp_path, vggss, capsys):
    folder = folder_of(tmp_path)
    path = tmp_path / "maps.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for clip in CLIPS:
            archive.write(folder / f"{clip}.npy", f"{clip}.npy")
            archive.writestr(f"__MACOSX/._{clip}.npy", b"\0\5\x16\7 of macOS")
    assert score(vggss, path) == 0
    assert "3 entries of 3 videos (effectively 3.0), 3 samples" in capsys.readouterr().out


def test_other_files_are_named_where_maps_are_missing(tmp_path, vggss, capsys):
    folder = folder_of(tmp_path)
    (folder / f"{CLIPS[0]}.npy").rename(folder / f"{CLIPS[0]}.png")
    (folder / "more").mkdir()
    (folder / "notes").write_text("x")
    (folder / ".hidden").write_text("x")
    assert score(vggss, folder) == 2
    error = refused(capsys, f"has none of 1: {CLIPS[0]}.", "--allow-missing")
    assert "It holds 1 .png file, 1 file without a suffix, 1 folder and 1 hidden file besides maps." in error


@pytest.mark.parametrize("suffix", [".png", ".pt", ".npy.gz"])
@pytest.mark.parametrize("more", [(), ("--allow-missing",)])
def test_a_folder_of_other_files_only(tmp_path, vggss, capsys, suffix, more):
    folder = folder_of(tmp_path, suffix)
    assert score(vggss, folder, *more) == 2
    refused(capsys, f"only 3 .{suffix.rpartition('.')[2]} files", "numpy.savez")


def test_a_file_of_torch(tmp_path, vggss, capsys):
    path = tmp_path / "maps.pt"
    torch.save({clip: torch.from_numpy(array) for clip, array in MAPS.items()}, path)
    assert score(vggss, path) == 2
    assert "data.pkl" not in refused(capsys, "maps.pt: expected maps", "1 .pkl file", "numpy.savez")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"\0" * 257 + b"ustar", "a tar archive"),
        (pickle.dumps([1]), "a pickle"),
        (b"text", "another file"),
        (b"", "another file"),
    ],
)
def test_a_file_that_is_no_archive(tmp_path, vggss, capsys, content, kind):
    path = tmp_path / "maps"
    path.write_bytes(content)
    assert score(vggss, path) == 2
    refused(capsys, f"expected a folder or an NPZ file of maps, but got {kind}")


@pytest.mark.parametrize("shape", [(14, 14, 1), (14, 14, 3), (14, 10, 4), (10, 14, 2)])
def test_maps_with_their_channels_last_are_refused(tmp_path, vggss, capsys, shape):
    path = tmp_path / "maps.npz"
    np.savez(path, **{clip: np.random.default_rng(0).random(shape, np.float32) for clip in CLIPS})
    assert score(vggss, path) == 2
    refused(capsys, "got 3 that cannot", f"{CLIPS[0]}: expected maps (M, h, w), but got {shape}", "channels last")


@pytest.mark.parametrize("shape", [(3, 14, 14), (14, 14, 5)])
def test_surplus_maps_are_told_with_their_shape(tmp_path, vggss, capsys, shape):
    path = tmp_path / "maps.npz"
    maps = {clip: np.random.default_rng(0).random(shape, np.float32) for clip in CLIPS}
    np.savez(path, **maps | {CLIPS[0]: MAPS[CLIPS[0]]})
    assert score(vggss, path) == 0
    text = f"2 clips have more maps than sources, such as {CLIPS[1]}: {shape[0]} maps for 1 source(s), from an array"
    assert f"Note: {text} of shape {shape}." in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["clips_with_surplus_maps"]["clips"] == 2
    assert "2 of 3 samples have more maps than sources" in content["protocols"]["paper"]["notes"][0]
    for name in ("table.md", "table.tex"):
        assert text in (tmp_path / "out" / name).read_text()


def test_the_share_of_the_clips_is_told(tmp_path, vggss, capsys):
    path = tmp_path / "maps.npz"
    np.savez(path, **MAPS)
    out = tmp_path / "out"
    assert score(vggss, path) == 0
    assert "Scored 3 of 3 annotated clips (100 %)\n" in capsys.readouterr().out
    entries = json.loads(vggss.read_text())
    entries[1]["bbox"] = [[0.5, 0.5, 0.5, 0.5]]
    vggss.write_text(json.dumps(entries))
    (tmp_path / "list.csv").write_text(f"{CLIPS[0]},bird\n{CLIPS[1]},bird\n", encoding="utf-8-sig")
    assert score(vggss, path, "--clips", tmp_path / "list.csv", "--on-invalid", "drop") == 0
    share = "Scored 1 of 3 annotated clips (33.3 %), 1 of the 2 listed ones; 1 without a usable box left out"
    assert share in capsys.readouterr().out
    assert json.loads((out / "metrics.json").read_text())["share"] == share
    assert share in (out / "table.tex").read_text()
    np.savez(path, **{CLIPS[0]: MAPS[CLIPS[0]]})
    assert score(vggss, path, "--allow-missing") == 0
    printed = capsys.readouterr().out
    assert "Scored 3 of 3 annotated clips (100 %); 2 of them without a map file" in printed
    assert "Note: 2 of 3 samples have no map and are left out by protocol 'paper'" in printed
    assert "samples without map" in (out / "table.tex").read_text()
