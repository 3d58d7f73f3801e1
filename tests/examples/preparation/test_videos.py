"""Finding the video file of a clip id."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from avsl.preparation.videos import VideoFile, VideoFolder


@pytest.fixture
def folder(tmp_path: Path) -> VideoFolder:
    for name in (
        "solo/flute/E7E1kMExVcg.mp4",
        "solo/cello/-_-TDDxoaAc.WEBM",
        "duet/Some [title] [HnUOaSfTA6c].mkv",
        "zpWuikVorYg_000032.mp4",
        "zpWuikVorYg.mp4",
        "gEvCUcZ6w88_30.mp4",
        "gEvCUcZ6w88_40000_50000.mp4",
        "JIemsK_0lXc.mp4",
        "b/JIemsK_0lXc.mkv",
        "notes/RgyqhpOJFM4.txt",
        "RgyqhpOJFM4.mp4.part",
        "RgyqhpOJFM4.f137.mp4",
        ".RgyqhpOJFM4.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return VideoFolder(tmp_path)


@pytest.mark.parametrize(
    ("name", "path", "cut"),
    [
        ("E7E1kMExVcg_053_01611", "solo/flute/E7E1kMExVcg.mp4", False),
        ("-_-TDDxoaAc_000_00000", "solo/cello/-_-TDDxoaAc.WEBM", False),
        ("HnUOaSfTA6c_000_00007", "duet/Some [title] [HnUOaSfTA6c].mkv", False),
        ("zpWuikVorYg_000032", "zpWuikVorYg_000032.mp4", True),
        ("zpWuikVorYg_000099", "zpWuikVorYg.mp4", False),
        ("gEvCUcZ6w88_000030", "gEvCUcZ6w88_30.mp4", True),
        ("gEvCUcZ6w88_000040", "gEvCUcZ6w88_40000_50000.mp4", True),
        ("JIemsK_0lXc_000364", "JIemsK_0lXc.mp4", False),
    ],
)
def test_files(folder: VideoFolder, tmp_path: Path, name: str, path: str, cut: bool) -> None:
    assert folder.find(name) == VideoFile(tmp_path / path, cut)


def test_leftovers_of_downloads_are_no_videos(folder: VideoFolder) -> None:
    assert folder.find("RgyqhpOJFM4_000030") is None


def test_clips_of_a_file_are_together(folder: VideoFolder, tmp_path: Path) -> None:
    names = ["zpWuikVorYg_000032", "E7E1kMExVcg_000_00000", "RgyqhpOJFM4_000030", "E7E1kMExVcg_000_00007"]
    groups, missing = folder.group(names)
    assert list(groups.items()) == [
        (VideoFile(tmp_path / "solo/flute/E7E1kMExVcg.mp4", False), [names[1], names[3]]),
        (VideoFile(tmp_path / "zpWuikVorYg_000032.mp4", True), [names[0]]),
    ]
    assert missing == [names[2]]


def test_loops_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "solo").mkdir()
    (tmp_path / "solo" / "E7E1kMExVcg.mp4").touch()
    for link in ("l1", "l2", "solo/l3", "solo/l4"):
        (tmp_path / link).symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "solo")
    videos = VideoFolder(tmp_path)
    assert len(videos) == 1
    assert videos.find("E7E1kMExVcg_053_01611").path.samefile(tmp_path / "solo" / "E7E1kMExVcg.mp4")


def test_links_to_themselves_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "aaaaaaaaaaa.mp4").symlink_to("aaaaaaaaaaa.mp4")
    (tmp_path / "bbbbbbbbbbb.mp4").touch()
    assert len(VideoFolder(tmp_path)) == 1


def test_only_regular_files_are_videos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "E7E1kMExVcg.mp4")  # to open it would wait for a writer
    assert len(VideoFolder(tmp_path)) == 0


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "solo").mkdir()
    scan = os.scandir

    def refuse(folder: Path):
        if folder.name == "solo":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(VideoFolder(tmp_path)) == 0
    assert f"Files in {tmp_path / 'solo'} are not found: Permission denied" in caplog.text


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected `--videos` to be a folder, but there is none at .*nowhere"):
        VideoFolder(tmp_path / "nowhere")


def test_files_of_no_listed_clip(folder: VideoFolder, tmp_path: Path) -> None:
    every = set(folder.unlisted([]))
    assert len(every) == len(folder)
    names = ["zpWuikVorYg_000032", "E7E1kMExVcg_000_00000", "gEvCUcZ6w88_000099"]  # the last one has no file
    listed = {tmp_path / "zpWuikVorYg_000032.mp4", tmp_path / "solo/flute/E7E1kMExVcg.mp4"}
    assert every - set(folder.unlisted(names)) == listed
