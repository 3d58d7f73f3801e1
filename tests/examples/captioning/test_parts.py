"""Captioning by several machines: parts at once on one folder, resumed, joined, and what a join refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from avsl.captioning.records import locked
from avsl.commands.caption import main
from avsl.parts import Part

SCRIPT = Path(__file__).parents[3] / "examples" / "generate_captions.py"
PARTS = ("1/3", "2/3", "3/3")


@pytest.fixture
def options(server, make_folder) -> list[str]:
    data = make_folder(solos=20, duets=4)
    waits = ["--first-wait", "0.001", "--retries", "2", "--concurrency", "1"]
    return ["--data-root", str(data), "--model", "m", "--server", server.url, *waits]


@pytest.fixture
def metadata(options: list[str]) -> Path:
    return Path(options[1]) / "metadata"


@pytest.fixture
def parts(options: list[str], metadata: Path) -> Path:
    """``metadata/`` with three finished parts that are not joined."""
    for part in PARTS:
        assert main([*options, "--part", part]) == 0
    return metadata


def whole(options: list[str], tmp_path: Path) -> bytes:
    """What one process writes."""
    assert main([*options, "--out", str(tmp_path / "whole" / "captions.jsonl")]) == 0
    return (tmp_path / "whole" / "captions.jsonl").read_bytes()


def refused(options: list[str], caplog: pytest.LogCaptureFixture, *more: str) -> str:
    caplog.clear()
    assert main([*options, *more]) == 2
    return caplog.text


def test_a_join_equals_one_process(server, options, parts: Path, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    assert len(server.requests) == 24
    assert not (parts / "captions.jsonl").exists()
    for _ in range(2):  # a second join changes nothing
        assert main([*options, "--join"]) == 0
        assert (parts / "captions.jsonl").read_bytes() == whole(options, tmp_path)
        (origin,) = json.loads((parts / "captions.provenance.json").read_text())["origins"]
        assert origin["model"] == "m"
    assert "Joined the captions of 24 clips" in caplog.text
    assert not (parts / "captions.failed.jsonl").exists()
    assert main([*options, "--part", "2/3"]) == 0
    assert main(options) == 0
    for path in parts.glob("captions.3-of-3.*"):  # what was joined is not asked about again
        path.unlink()
    assert main([*options, "--part", "3/3"]) == 0
    assert len(server.requests) == 48  # none of these runs asked


@pytest.mark.slow
def test_three_at_once_and_one_killed(server, options, metadata: Path, tmp_path: Path) -> None:
    clips = [f"video-{number:05d}_000030" for number in range(24)]  # of VGGSound, whose lists load no torch
    for clip in clips:
        shutil.copy(metadata.parent / "frames" / "s0.jpg", metadata.parent / "frames" / f"{clip}.jpg")
    (metadata / "vggsound_train.csv").write_text("".join(f"{clip},flute\n" for clip in clips))
    options = [*options, "--lists", "vggsound_train.csv"]
    killed = threading.Event()

    def reply(request):
        if request.number > 3:
            killed.wait()
        return request.good

    server.reply = reply
    script = [sys.executable, str(SCRIPT), *options, "--part"]
    second, *others = (
        subprocess.Popen([*script, part], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for part in ("2/3", "1/3", "3/3")
    )
    first_lines = metadata / "captions.2-of-3.jsonl"
    while second.poll() is None and not (first_lines.is_file() and first_lines.stat().st_size):
        if all((metadata / f"captions.{n}-of-3.jsonl").is_file() for n in (1, 2, 3)):
            killed.set()  # the others took the first answers
    second.kill()
    killed.set()
    for process, status in ((second, -9), *((other, 0) for other in others)):
        _, said = process.communicate(timeout=120)
        assert process.returncode == status, said
    assert main([*options, "--part", "2/3"]) == 0
    assert main([*options, "--join"]) == 0
    assert (metadata / "captions.jsonl").read_bytes() == whole(options, tmp_path)


def test_failures_are_joined_and_asked_again(server, options, metadata: Path, make_reply, caplog) -> None:
    server.reply = lambda request: request.good if len(request.labels) == 1 else make_reply("no")
    for part in PARTS:
        main([*options, "--attempts", "1", "--part", part])
    assert main([*options, "--attempts", "1", "--join"]) == 1
    failed = [json.loads(line)["id"] for line in (metadata / "captions.failed.jsonl").read_text().splitlines()]
    assert failed == ["d0", "d1", "d2", "d3"]
    assert "Failed: 4 of 24 clips" in caplog.text
    server.reply = lambda request: request.good
    for part in PARTS:
        assert main([*options, "--retry-failed", "--part", part]) == 0
    assert main([*options, "--join"]) == 0
    assert not (metadata / "captions.failed.jsonl").exists()
    origins = json.loads((metadata / "captions.provenance.json").read_text())["origins"]
    assert {origin["attempts"] for origin in origins} == {1}


def test_missing_parts(options, parts: Path, caplog) -> None:
    (parts / "captions.3-of-3.jsonl").unlink()
    first = (parts / "captions.1-of-3.jsonl").read_text().splitlines(keepends=True)
    (parts / "captions.1-of-3.jsonl").write_text("".join(first[1:]))
    said = refused(options, caplog, "--join")
    assert "Expected captions of all 24 clips, but" in said
    assert "in parts 1/3, 3/3. Run the same command with --part" in said
    assert not (parts / "captions.jsonl").exists()
    for path in parts.glob("captions.*"):
        path.unlink()
    assert "but there are none. Run" in refused(options, caplog, "--join")


def test_parts_of_other_origins(options, parts: Path, caplog) -> None:
    said = refused([*options, "--temperature", "0.1"], caplog, "--join")
    assert "captions.1-of-3.jsonl are of another (generation" in said
    path = parts / "captions.2-of-3.provenance.json"
    path.write_text(path.read_text().replace('"model": "m"', '"model": "other"'))
    assert "captions.2-of-3.jsonl are of another (model 'other', now 'm')" in refused(options, caplog, "--join")
    assert main([*options, "--join", "--force"]) == 0
    origins = json.loads((parts / "captions.provenance.json").read_text())["origins"]
    assert [origin["model"] for origin in origins] == ["m", "other"]
    assert "captions of another origin (model 'other', now 'm')" in refused(options, caplog, "--part", "1/3")


def test_parts_of_another_number(options, parts: Path, caplog) -> None:
    assert "parts of 3 and of 4, such as 1/3, 2/4" in refused(options, caplog, "--part", "2/4")
    shutil.copy(parts / "captions.1-of-3.jsonl", parts / "captions.1-of-2.jsonl")
    assert "parts of 2 and of 3, such as 1/2, 1/3" in refused(options, caplog, "--join")


def test_clips_of_other_parts_and_other_captions(options, parts: Path, caplog) -> None:
    one, two = (parts / f"captions.{n}-of-3.jsonl" for n in (1, 2))
    content, line = one.read_text(), two.read_text().splitlines(keepends=True)[0]
    one.write_text(content + line)
    said = refused(options, caplog, "--join")
    assert f"to hold the clips of part 1/3 only, but it has {json.loads(line)['id']}" in said
    one.write_text(content)
    (parts / "captions.jsonl").write_text(line.replace("chair", "table"))
    shutil.copy(parts / "captions.2-of-3.provenance.json", parts / "captions.provenance.json")
    assert "captions.2-of-3.jsonl differ from those in" in refused(options, caplog, "--join")


def test_a_run_of_all_clips_wants_parts_joined(server, options, parts: Path, caplog) -> None:
    said = refused(options, caplog)
    assert "captions.1-of-3.jsonl to be joined into captions.jsonl. Run --join first" in said
    assert len(server.requests) == 24


def test_locks(options, parts: Path, caplog) -> None:
    lock = locked(parts / "captions.2-of-3.jsonl")
    assert "Another process writes" in refused(options, caplog, "--join")
    assert "Another process writes" in refused(options, caplog, "--part", "2/3")
    assert main([*options, "--part", "1/3"]) == 0
    lock.release()
    assert main([*options, "--join"]) == 0


def test_frames_of_other_parts_may_be_missing(options, capsys) -> None:
    data = Path(options[1])
    own = [path for path in (data / "frames").iterdir() if Part(1, 3).holds(path.stem)]
    for path in set((data / "frames").iterdir()) - set(own):
        path.unlink()
    assert main([*options, "--part", "1/3", "--limit", "1"]) == 0
    assert main([*options, "--part", "1/3", "--dry-run"]) == 0
    assert f"{len(own) - 1} of {len(own)} clips would be asked about" in capsys.readouterr().out
    assert main([*options, "--part", "1/3"]) == 0
