"""The whole captioning job with a server: output files, resuming, and errors."""

from __future__ import annotations

import base64
import errno
import html
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from avsl.captioning import job, records
from avsl.captioning import server as server_module
from avsl.captioning.frames import read_clips
from avsl.commands import caption as command
from avsl.commands.caption import main
from avsl.data.folders import read_captions

SCRIPT = Path(__file__).parents[3] / "examples" / "generate_captions.py"


def lines(folder: Path, name: str = "captions.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata" / name).read_text().splitlines()]


@pytest.fixture
def start(server, folder: Path):
    def make(*arguments: str, root: Path = folder) -> int:
        waits = ["--first-wait", "0.001", "--retries", "2", "--concurrency", "2"]
        return main(["--data-root", str(root), "--model", "m", "--server", server.url, *waits, *arguments])

    return make


def test_what_is_written_is_what_training_reads(start, folder: Path) -> None:
    assert start() == 0
    captions = dict(read_captions(folder / "metadata" / "captions.jsonl"))
    assert captions == {
        **{f"s{i}": (("an image of a person playing",), "an image of a chair") for i in range(3)},
        "d0": (("an image of a cello", "an image of a flute"), "an image of a chair"),
    }
    assert sorted(p.name for p in (folder / "metadata").glob("captions*")) == [
        "captions.jsonl",
        "captions.provenance.json",
    ]


def test_an_unusable_answer_is_asked_again_with_the_reason(start, server, folder: Path, make_reply) -> None:
    server.reply = lambda r: r.good if "An earlier answer" in r.prompt else make_reply("I can't see it.")
    assert start() == 0
    assert len(server.requests) == 8
    again = [r for r in server.requests if "An earlier answer" in r.prompt]
    assert all("it holds no JSON object" in r.prompt and r.body["temperature"] == 0.7 for r in again)
    assert len(lines(folder)) == 4


def test_failures_are_counted_kept_and_asked_again_on_request(
    start, server, folder: Path, make_reply, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    wrong = '{"foreground": ["an image of a cello"], "background": "an image of a chair"}'
    server.reply = lambda r: r.good if len(r.labels) == 1 else make_reply(wrong)
    assert start("--attempts", "3") == 1
    assert 'Failed: 1 of 4 clips. First reason: "foreground" has 1 captions' in caplog.text
    assert {e["id"] for e in lines(folder)} == {"s0", "s1", "s2"}
    (failed,) = lines(folder, "captions.failed.jsonl")
    assert failed == {
        "id": "d0",
        "reason": '"foreground" has 1 captions, but 2 are wanted, one per label',
        "answer": wrong,
    }
    assert len(server.requests) == 3 + 3

    server.reply = lambda r: r.good
    assert start() == 1
    assert len(server.requests) == 6
    assert start("--retry-failed") == 0
    assert len(server.requests) == 7
    assert {e["id"] for e in lines(folder)} == {"s0", "s1", "s2", "d0"}
    assert not (folder / "metadata" / "captions.failed.jsonl").exists()


def test_faults_of_the_server_are_failures_too(start, server, folder: Path, make_reply) -> None:
    server.reply = lambda r: r.good if len(r.labels) == 1 else make_reply(status=500, body="oops")
    assert start() == 1
    (failed,) = lines(folder, "captions.failed.jsonl")
    assert failed["answer"] is None
    assert "HTTP 500" in failed["reason"]
    assert len(server.requests) == 3 + 3


def test_a_dead_server_stops_the_job(
    start, server, folder: Path, make_reply, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(job, "MAX_UNANSWERED", 2)
    server.reply = lambda _: make_reply(status=500, body="oops")
    assert start("--retries", "0") == 2
    assert "2 clips in a row got no answer. Last reason: HTTP 500" in caplog.text
    assert not list((folder / "metadata").glob("captions*"))
    server.reply = lambda r: r.good
    assert start() == 0


def test_a_dead_server_stops_a_job_of_few_clips(start, server, folder: Path, make_reply, caplog) -> None:
    server.reply = lambda _: make_reply(cut=True)
    assert start("--retries", "0") == 2
    assert "4 clips in a row got no answer. Last reason: RemoteProtocolError" in caplog.text
    assert not list((folder / "metadata").glob("captions*"))


def test_clips_without_an_answer_count_as_failed_once_others_are_answered(
    start, server, folder: Path, make_reply, monkeypatch
) -> None:
    monkeypatch.setattr(job, "MAX_UNANSWERED", 2)
    server.reply = lambda r: make_reply(status=500, body="oops") if r.number % 2 == 0 else r.good
    assert start("--retries", "0", "--concurrency", "1") == 1
    assert [e["id"] for e in lines(folder, "captions.failed.jsonl")] == ["s0", "s2"]


def test_a_model_whose_answers_are_all_unusable_stops_the_job(
    start, server, make_folder_of, make_reply, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder_of(["cello"] * 60)
    server.reply = lambda _: make_reply("I am a poem.")
    assert start("--attempts", "2", root=folder) == 2
    assert (
        "None of the answers about 30 clips in a row can be used. Last reason: it holds no JSON object" in caplog.text
    )
    assert len(lines(folder, "captions.failed.jsonl")) == 30
    assert len(server.requests) < 2 * 30 + 5


def test_unusable_answers_among_usable_ones_do_not_stop_the_job(start, server, make_folder_of, make_reply) -> None:
    folder = make_folder_of(["cello"] * 60)
    server.reply = lambda r: r.good if r.number % 20 == 0 else make_reply("I am a poem.")
    assert start("--attempts", "1", root=folder) == 1
    assert len(lines(folder)) == 3


def test_unreadable_frames_do_not_stop_the_job(start, server, make_folder_of, monkeypatch) -> None:
    monkeypatch.setattr(job, "MAX_UNANSWERED", 2)
    monkeypatch.setattr(job, "MAX_UNUSED", 2)
    folder = make_folder_of(["cello"] * 5)
    for i in range(4):
        (folder / "frames" / f"s{i}.jpg").write_bytes(b"no picture")
    assert start(root=folder) == 1
    assert len(lines(folder, "captions.failed.jsonl")) == 4
    assert len(lines(folder)) == 1


def test_a_refusing_server_leaves_nothing_behind(start, server, folder: Path, make_reply) -> None:
    server.reply = lambda _: make_reply(status=404, body='{"error": {"message": "no such model"}}')
    assert start() == 2
    assert not list((folder / "metadata").glob("captions*"))


def test_a_refusal_after_answers_is_a_failed_clip(start, server, folder: Path, make_reply) -> None:
    """Some services reply 403 to a single picture that their filter dislikes."""
    server.reply = lambda r: r.good if len(r.labels) == 1 else make_reply(status=403, body='{"error": "flagged"}')
    assert start("--concurrency", "1") == 1
    (failed,) = lines(folder, "captions.failed.jsonl")
    assert failed["reason"] == f"HTTP 403 from {server.url}: flagged"


GPT_5 = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. "
    "Only the default (1) value is supported.",
}


def test_a_server_without_max_tokens_and_temperature(
    start, server, folder: Path, make_reply, caplog: pytest.LogCaptureFixture
) -> None:
    def reply(request):
        refused = [name for name in GPT_5 if name in request.body]
        return (
            make_reply(status=400, body=json.dumps({"error": {"message": GPT_5[refused[0]]}}))
            if refused
            else request.good
        )

    server.reply = reply
    assert start() == 2
    assert "run again with --token-field max_completion_tokens, because http://127.0.0.1" in caplog.text
    options = ["--token-field", "max_completion_tokens"]
    assert start(*options) == 2
    assert "run again with --no-temperature, because http://127.0.0.1" in caplog.text
    assert not list((folder / "metadata").glob("captions*"))
    options.append("--no-temperature")
    assert start(*options) == 0
    assert server.requests[-1].body["max_completion_tokens"] == 300
    provenance = json.loads((folder / "metadata" / "captions.provenance.json").read_text())
    assert provenance["origins"][-1]["generation"]["temperature"] is None


@pytest.mark.parametrize(
    "message",
    ["max_tokens is too large: 300. This model has 256", "max_completion_tokens not supported", "temperature"],
)
def test_other_errors_about_these_options_are_failed_clips(
    start, server, folder: Path, make_reply, message: str
) -> None:
    refusal = make_reply(status=400, body=json.dumps({"error": {"message": message}}))
    server.reply = lambda r: refusal if r.number else r.good
    assert start() == 1
    assert len(lines(folder, "captions.failed.jsonl")) == 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--timeout", "nan"], "argument --timeout: expected more than 0, but got nan"),
        (["--first-wait", "inf"], "argument --first-wait: expected more than 0, but got inf"),
        (["--longest-wait", "-1"], "argument --longest-wait: expected more than 0, but got -1"),
        (["--retries", "-1"], "argument --retries: expected at least 0, but got -1"),
        (["--requests-per-minute", "0"], "argument --requests-per-minute: expected more than 0, but got 0"),
        (["--temperature", "-1"], "argument --temperature: expected at least 0, but got -1"),
    ],
)
def test_options_that_would_never_end(
    start, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit):
        start(*options)
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files", "a.jpg"), MemoryError()])
def test_errors_of_this_machine_are_no_failed_clips(
    start, server, folder: Path, monkeypatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    reading = server_module.data_url

    def refuse(path: Path, longest: int) -> str:
        if path.stem == "s1":
            raise error
        return reading(path, longest)

    with monkeypatch.context() as own:
        own.setattr(server_module, "data_url", refuse)
        assert start() == 2
    assert (
        "Too many open files 'a.jpg': allow more open" in caplog.text or "this machine is out of memory" in caplog.text
    )
    assert not (folder / "metadata" / "captions.failed.jsonl").exists()
    assert start() == 0
    assert len(lines(folder)) == 4


def test_an_error_of_this_machine_that_passes_is_waited_for(start, server, folder: Path, monkeypatch) -> None:
    errors = [OSError(errno.ENFILE, "Too many open files in system")] * 2
    reading = server_module.data_url

    def refuse(path: Path, longest: int) -> str:
        if errors:
            raise errors.pop()
        return reading(path, longest)

    monkeypatch.setattr(server_module, "data_url", refuse)
    assert start() == 0
    assert len(lines(folder)) == 4


def test_a_frame_that_vanishes_is_no_failed_clip(start, server, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def reply(request):
        (folder / "frames" / "d0.jpg").unlink(missing_ok=True)
        return request.good

    server.reply = reply
    assert start("--concurrency", "1") == 2
    assert "No such file or directory" in caplog.text
    assert not (folder / "metadata" / "captions.failed.jsonl").exists()


@pytest.mark.slow  # starts a process, the only way to limit its descriptors
def test_too_few_file_descriptors_are_no_failed_clips(server, make_folder) -> None:
    folder = make_folder(solos=40, duets=0)
    together = threading.Semaphore(0)

    def reply(request):
        together.acquire(timeout=0.2)  # connections stay open, so that more of them are needed than allowed
        return request.good

    server.reply = reply
    options = ["--data-root", str(folder), "--model", "m", "--server", server.url, "--concurrency", "40"]
    command = shlex.join([sys.executable, str(SCRIPT), *options, "--first-wait", "0.01", "--retries", "1"])
    process = subprocess.run(["bash", "-c", f"ulimit -n 20; {command}"], capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    assert "Too many open files" in process.stderr
    assert not (folder / "metadata" / "captions.failed.jsonl").exists()
    assert main([*options, "--concurrency", "4"]) == 0
    assert len(lines(folder)) == 40


def test_a_second_run_asks_nothing(start, server, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert start() == 0
    before = (folder / "metadata" / "captions.jsonl").read_bytes()
    asked = len(server.requests)
    assert start() == 0
    assert "Nothing to do" in caplog.text
    assert len(server.requests) == asked
    assert (folder / "metadata" / "captions.jsonl").read_bytes() == before


def test_limit(start, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert start("--limit", "3") == 0
    assert "Remaining: 1 of 4 clips" in caplog.text
    assert len(lines(folder)) == 3
    assert start("--limit", "3") == 0
    assert len(lines(folder)) == 4


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_was_cut_is_written_anew(start, server, folder: Path, cut: int) -> None:
    start()
    path = folder / "metadata" / "captions.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    assert start() == 0
    assert sorted(e["id"] for e in lines(folder)) == ["d0", "s0", "s1", "s2"]
    assert len(server.requests) == 5


def test_a_broken_line_in_the_middle_is_refused(start, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    start()
    path = folder / "metadata" / "captions.jsonl"
    broken = path.read_text().replace('{"id"', '"id"', 1)
    path.write_text(broken)
    assert start() == 2
    assert "in line 1 of" in caplog.text
    assert path.read_text() == broken


@pytest.mark.slow
def test_killed_and_started_again(server, make_folder) -> None:
    """Killed without cleanup while requests are open; then the same command resumes."""
    folder = make_folder(solos=30, duets=0)
    command = [sys.executable, str(SCRIPT), "--data-root", str(folder), "--model", "m", "--server", server.url]
    reached, half = threading.Event(), 15

    def reply(request):
        if request.number >= half:
            reached.set()
            server.released.wait(60)
        return request.good

    server.reply = reply
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "--concurrency", "3"], **quiet) as process:
        assert reached.wait(120)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    written = [e["id"] for e in lines(folder)]
    assert half - 3 <= len(written) <= half

    server.reply = lambda r: r.good
    asked = len(server.requests)
    assert main([*command[2:], "--concurrency", "3"]) == 0
    ids = [e["id"] for e in lines(folder)]
    assert sorted(ids) == sorted(f"s{i}" for i in range(30))
    assert ids[: len(written)] == written
    assert len(server.requests) - asked == 30 - len(written)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_interrupted(server, make_folder) -> None:
    folder = make_folder(solos=30, duets=0)
    reached = threading.Event()

    def reply(request):
        if request.number >= 10:
            reached.set()
            server.released.wait(60)
        return request.good

    server.reply = reply
    command = [sys.executable, str(SCRIPT), "--data-root", str(folder), "--model", "m", "--server", server.url]
    with subprocess.Popen([*command, "--concurrency", "2"], stderr=subprocess.PIPE, text=True) as process:
        assert reached.wait(120)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Run the same command again to resume." in errors
    assert "Traceback" not in errors
    assert "never retrieved" not in errors
    assert 8 <= len(lines(folder)) <= 10


def test_captions_of_another_model_are_not_mixed(start, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert start("--limit", "1") == 0
    assert start("--model", "other") == 2
    assert "captions of another origin (model 'm', now 'other')" in caplog.text
    assert len(lines(folder)) == 1
    assert start("--model", "other", "--out", str(folder / "metadata" / "other.jsonl"), "--limit", "1") == 0
    assert start("--model", "other", "--force") == 0
    assert len(lines(folder)) == 4
    provenance = json.loads((folder / "metadata" / "captions.provenance.json").read_text())
    assert [o["model"] for o in provenance["origins"]] == ["m", "other"]


def test_nor_of_another_prompt_or_temperature(start, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    assert start("--limit", "1") == 0
    assert start("--temperature", "0.1") == 2
    assert "generation {" in caplog.text
    monkeypatch.setattr(command, "prompt_hash", lambda: "0")
    assert start() == 2
    assert "another prompt" in caplog.text


def test_failures_of_another_model_do_not_count(
    start, server, folder: Path, make_reply, caplog: pytest.LogCaptureFixture
) -> None:
    server.reply = lambda _: make_reply("no")
    assert start() == 1
    server.reply = lambda r: r.good
    assert start("--model", "other") == 2
    assert "captions.failed.jsonl is of another origin (model 'm', now 'other'). Ask again with" in caplog.text
    assert start("--model", "other", "--retry-failed") == 0
    assert len(lines(folder)) == 4


def test_captions_of_unknown_origin_are_not_added_to(start, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = '{"id": "s0", "foreground": "an image of a cello", "background": "an image of a chair"}\n'
    (folder / "metadata" / "captions.jsonl").write_text(own)
    assert start() == 2
    assert "without a .provenance.json" in caplog.text
    assert start("--force") == 0
    assert (folder / "metadata" / "captions.jsonl").read_text().startswith(own)
    assert len(lines(folder)) == 4


def test_captions_that_no_longer_fit_the_list(start, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    start()
    (folder / "metadata" / "music_duet_train.txt").write_text("s0,cello,flute\n")
    (folder / "metadata" / "music_solo_train.txt").write_text("s1,cello\n")
    assert start() == 2
    assert "Expected 2 foreground captions for clip 's0' (cello, flute)" in caplog.text


def test_one_process_a_file(start, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    from filelock import FileLock

    with FileLock(folder / "metadata" / ".captions.jsonl.lock"):
        assert start() == 2
    assert "Another process writes" in caplog.text


def test_dry_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data-root", str(folder), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.count('["cello"]') == 1  # the prompt is printed once
    assert str(folder / "frames" / "s0.jpg") in shown
    assert "4 of 4 clips would be asked about, each up to 3 times" in shown
    assert main(["--data-root", str(folder), "--dry-run", "--limit", "1"]) == 0
    assert "1 of 4 clips would be asked about" in capsys.readouterr().out
    assert main(["--data-root", str(folder), "--dry-run", "--server", "http://x/v1"]) == 0
    assert "data:image/jpeg;base64," in capsys.readouterr().out
    assert not list((folder / "metadata").glob("captions*"))


def test_a_dry_run_counts_what_is_left(start, server, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start("--limit", "1") == 0
    (folder / "metadata" / "captions.failed.jsonl").write_text('{"id": "s2", "reason": "odd", "answer": null}\n')
    capsys.readouterr()
    for more, left in (((), 2), (("--retry-failed",), 3)):
        assert main(["--data-root", str(folder), "--dry-run", *more]) == 0
        assert f"{left} of 4 clips would be asked about" in capsys.readouterr().out


def test_a_mistyped_model_folder(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--data-root", str(folder), "--model", "./nomodel"]) == 2
    assert "there is no folder './nomodel'" in caplog.text


def test_the_key_comes_from_the_environment_and_stays_there(start, server, folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-key")
    monkeypatch.setenv("OPENAI_API_KEY", "another-key")
    assert start("--key-variable", "MY_KEY") == 0
    assert {r.headers["authorization"] for r in server.requests} == {"Bearer secret-key"}
    written = [p.read_bytes() for p in folder.rglob("*") if p.is_file()]
    assert not any(b"secret-key" in content or b"another-key" in content for content in written)


@pytest.mark.parametrize("key", ["secret\nkey-of-mine", "secret key-of-mine", "“secret-key-of-mine”"])
def test_a_key_that_cannot_be_sent_is_not_shown(start, monkeypatch, caplog: pytest.LogCaptureFixture, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert start() == 2
    assert "Expected the key in OPENAI_API_KEY to be ASCII without spaces" in caplog.text
    assert "key-of-mine" not in caplog.text


KEY = "sk-Ab3/+xyz_0123456789"


@pytest.mark.parametrize(
    "echo",
    [
        KEY,
        KEY.lower(),
        KEY[:15],
        json.dumps(KEY)[1:-1].replace("/", "\\/"),
        "".join(f"\\u{ord(c):04x}" for c in KEY),
        quote(KEY, safe=""),
        "".join(f"&#{ord(c)};" for c in KEY),
        html.escape(KEY),
        base64.b64encode(KEY.encode()).decode(),
    ],
)
@pytest.mark.parametrize("place", ["answer", "caption", "finish_reason", "error", "text/html", "location", "header"])
def test_an_echoed_key_is_neither_written_nor_logged(
    start, server, folder: Path, make_reply, monkeypatch, caplog: pytest.LogCaptureFixture, place: str, echo: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caption = json.dumps({"foreground": [f"an image of a cello {echo}"], "background": "an image of a chair"})
    replies = {
        "answer": make_reply(f"You sent Bearer {echo}"),
        "caption": make_reply(caption.replace("\\\\", "\\")),
        "finish_reason": make_reply("", choice={"finish_reason": echo}),
        "error": make_reply(status=400, body=json.dumps({"error": {"message": f"Bearer {echo}"}})),
        "text/html": make_reply(body=f"<pre>Bearer {echo}</pre>", headers={"Content-Type": "text/html"}),
        "location": make_reply(status=302, body="", headers={"Location": f"http://127.0.0.1:9/?k={echo}"}),
        "header": make_reply(status=429, body="{}", headers={"X": echo}, reason=echo),
    }
    server.reply = lambda r: replies[place] if r.number else r.good
    assert start("--attempts", "1", "--retries", "0") == 1
    written = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file()).decode("latin-1")
    for text in (written, caplog.text):
        assert echo[:15].lower() not in text.lower()
        assert json.dumps(echo)[1:14].lower() not in text.lower()


def test_lists(folder: Path) -> None:
    metadata = folder / "metadata"
    (metadata / "vggsound_train.csv").write_text('s0,cello\nv,"race car, auto racing"\nw,race car, auto racing\n')
    for name in ("v", "w"):
        (folder / "frames" / f"{name}.jpg").write_bytes((folder / "frames" / "s0.jpg").read_bytes())
    clips = {clip.name: clip.labels for clip in read_clips(folder)}
    assert list(clips) == ["s0", "s1", "s2", "d0", "v", "w"]
    assert clips["d0"] == ("cello", "flute")
    assert clips["v"] == clips["w"] == ("race car, auto racing",)
    assert [clip.name for clip in read_clips(folder, ["music_duet_train.txt"])] == ["d0"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("music_solo_train.txt", "s0,cello\nmissing,cello\n", "1 of 3 listed frames are missing, first .*missing.jpg"),
        ("music_duet_train.txt", "s0,cello,flute\n", "'s0' has cello in one list and cello, flute in"),
        ("music_duet_train.txt", "d0\n", "Expected classes in music_duet_train.txt, but clip 'd0' has none"),
        ("vggsound_train.csv", "../s0,cello\n", "Expected an id without path separators in line 1 .* '../s0'"),
        ("vggsound_train.csv", "s0,\n", "Expected 'id,class' in line 1"),
    ],
)
def test_wrong_lists(folder: Path, name: str, text: str, reason: str) -> None:
    (folder / "metadata" / name).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        read_clips(folder)


def test_no_list(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_clips(folder, ["other.txt"])
    for path in (folder / "metadata").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"music_solo_train\.txt, .*vggsound_train\.csv, but .* has none"):
        read_clips(folder)


def test_an_address_without_its_scheme(start, server, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        start("--server", server.url, "localhost:8000/v1")
    assert "expected an address like http://localhost:8000/v1, but got 'localhost:8000/v1'" in capsys.readouterr().err
    assert not list((folder / "metadata").glob("captions*"))


def test_an_address_in_capitals(start, server) -> None:
    assert start("--server", server.url.replace("http", "HTTP")) == 0


def test_a_full_disk_is_named_and_the_next_run_resumes(start, folder: Path, monkeypatch, caplog) -> None:
    synced = iter([None, None, OSError(errno.ENOSPC, "No space left on device")])

    def fsync(_: int) -> None:
        if error := next(synced):
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(records, "os", SimpleNamespace(fsync=fsync))
        assert start() == 2
    assert f"No space left on device: '{folder / 'metadata' / 'captions.jsonl'}'" in caplog.text
    assert start() == 0
    assert sorted(e["id"] for e in lines(folder)) == ["d0", "s0", "s1", "s2"]


@pytest.mark.parametrize("name", ["captions.jsonl", "captions.failed.jsonl"])
def test_a_pipe_is_no_output(start, server, folder: Path, caplog, name: str) -> None:
    """Such as ``--out /dev/stdout``. Devices would be read without an end, and deleted if they seem empty."""
    os.mkfifo(folder / "metadata" / name)
    assert start() == 2
    assert f"{name} to be a file that can be resumed" in caplog.text
    assert (folder / "metadata" / name).exists()
    assert server.requests == []
