"""The job of ``generate_captions.py``: ask a model about every clip without captions, and keep what is usable."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..captioning.answers import AnswerError, parse_answer
from ..captioning.backend import Backend, Generation, Question
from ..captioning.frames import Clip, data_url, read_clips
from ..captioning.prompt import build_prompt, messages, prompt_hash
from ..captioning.records import Records
from .exit_status import exit_status

log = logging.getLogger(__name__)
WITHOUT_ANSWER = 20  # in a row: then something is wrong with the model rather than with the frames


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of ``generate_captions.py``."""
    parser = argparse.ArgumentParser(
        description="Foreground and background captions of training frames by a multimodal language model."
    )
    add = parser.add_argument
    add("--data-root", type=Path, required=True, help="folder with frames/<id>.jpg and metadata/")
    add("--lists", nargs="+", default=[], metavar="NAME", help="training lists in metadata/ (default: all known ones)")
    add("--model", help="hub name or folder of the model; with --server, the name that the server gives it")
    add("--server", nargs="+", metavar="URL", help="base URLs with OpenAI's interface, as http://localhost:8000/v1")
    add("--out", type=Path, help="file to write (default: metadata/captions.jsonl in the data folder)")
    add("--limit", type=_positive, help="ask about this many clips at most")
    add("--attempts", type=_positive, default=3, help="answers asked for before a clip counts as failed (%(default)s)")
    add("--retry-failed", action="store_true", help="ask again about the clips that failed in earlier runs")
    add("--force", action="store_true", help="add to captions of another model or prompt")
    add("--dry-run", action="store_true", help="show what would be asked about the first clip, and ask nothing")
    generation = Generation()
    add("--temperature", type=float, default=generation.temperature, help="of repeated questions (%(default)s)")
    add("--max-tokens", type=_positive, default=generation.max_tokens, help="of an answer (%(default)s)")
    add("--longest-side", type=_positive, default=generation.longest_side, help="of a frame, pixels (%(default)s)")
    local = parser.add_argument_group("a model on this machine")
    local.add_argument("--batch-size", type=_positive, default=8, help="frames at once (%(default)s)")
    local.add_argument("--device", default="auto", help="torch device (default: CUDA if there is any)")
    local.add_argument("--dtype", default="auto", help="torch dtype, as bfloat16 (default: the checkpoint's)")
    server = parser.add_argument_group("a server")
    server.add_argument("--concurrency", type=_positive, default=16, help="open requests a server (%(default)s)")
    server.add_argument("--timeout", type=float, default=120.0, help="of a request, seconds (%(default)s)")
    server.add_argument("--retries", type=int, default=6, help="of a request without an answer (%(default)s)")
    server.add_argument("--first-wait", type=float, default=1.0, help="before the first retry, seconds (%(default)s)")
    server.add_argument("--requests-per-minute", type=float, help="to all servers together (default: no limit)")
    server.add_argument(
        "--key-variable", default="OPENAI_API_KEY", help="environment variable with the key (%(default)s)"
    )
    options = parser.parse_args(arguments)
    if not options.model and not options.dry_run:
        parser.error("--model is required")
    if options.requests_per_minute is not None and not options.requests_per_minute > 0:
        parser.error("--requests-per-minute has to be positive")
    for url in options.server or ():
        if not url.startswith(("http://", "https://")):
            parser.error(f"argument --server: expected an address like http://localhost:8000/v1, but got {url!r}")
    options.out = options.out or options.data_root / "metadata" / "captions.jsonl"
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, but got {value}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; 0 if no clip has failed, 1 if some have, 2 if the job can't be done, 130 if it was interrupted."""
    options = parse_arguments(arguments)

    def job() -> int:
        clips = read_clips(options.data_root, options.lists)
        if options.dry_run:
            print(describe(clips[0], options))
            return 0
        return run(options, clips)

    return exit_status(job)


def run(options: argparse.Namespace, clips: Sequence[Clip]) -> int:
    """Ask about the clips that are still to do; returns the exit code."""
    generation = Generation(options.temperature, options.max_tokens, options.longest_side)
    started = time.monotonic()
    with Records(
        options.out, provenance(options, generation), force=options.force, retry_failed=options.retry_failed
    ) as records:
        without = records.to_do(clips)
        to_do = without[: options.limit]
        if to_do:
            log.info("%d clips, %d of them to do", len(clips), len(to_do))
            written = caption(_backend(options, generation), to_do, records, options.attempts)
            log.info("%d captioned in %.0f s: %s", written, time.monotonic() - started, records.path)
        else:
            log.info("Nothing to do: %s", records.path)
        failed = [records.failed[clip.name] for clip in clips if clip.name in records.failed]
    if len(without) > len(to_do):
        log.info("Left: %d of %d clips", len(without) - len(to_do), len(clips))
    if failed:
        log.error(
            "Failed: %d of %d clips, the first because: %s. %s has all reasons, --retry-failed asks again",
            len(failed),
            len(clips),
            failed[0],
            records.failed_path,
        )
    return 1 if failed else 0


def caption(backend: Backend, clips: Sequence[Clip], records: Records, attempts: int) -> int:
    """Ask about ``clips`` until each has captions or has failed; returns how many have captions.

    Raises:
        ConnectionError: if many clips in a row got no answer at all.
    """
    fresh, again = iter(clips), deque[Question]()
    written = silent = 0

    def take() -> Question | None:
        if again:
            return again.popleft()
        clip = next(fresh, None)
        return None if clip is None else Question(clip)

    with (
        logging_redirect_tqdm(),
        tqdm(total=len(clips), unit="clip", smoothing=0.05, dynamic_ncols=True) as bar,
        closing(backend.answers(take)) as answers,
    ):
        for answer in answers:
            question = answer.question
            try:
                if answer.text is None:
                    raise AnswerError(answer.error)
                records.write(question.clip, parse_answer(answer.text, question.clip.labels))
                written += 1
            except AnswerError as error:
                if answer.text is not None and question.attempt + 1 < attempts:
                    again.append(question.again(str(error)))
                    continue
                records.write_failure(question.clip, str(error), answer.text)
            silent = silent + 1 if answer.text is None else 0
            if silent == WITHOUT_ANSWER:
                raise ConnectionError(
                    f"{silent} clips in a row got no answer, the last one because: {answer.error}. "
                    "Once that is mended, --retry-failed asks about them again"
                )
            bar.update()
            bar.set_postfix(failed=bar.n - written, refresh=False)
    return written


def _backend(options: argparse.Namespace, generation: Generation) -> Backend:
    if options.server:
        try:
            from ..captioning.server import Patience, ServerModel, api_key
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("--server needs openai. Run: pip install 'sslosses[captions]'") from error
        return ServerModel(
            options.server,
            options.model,
            generation,
            concurrency=options.concurrency,
            patience=Patience(
                options.timeout,
                options.retries,
                options.first_wait,
                requests_per_minute=options.requests_per_minute,
            ),
            key=api_key(options.key_variable),
        )
    from ..captioning.local import LocalModel

    return LocalModel(
        options.model, generation, batch_size=options.batch_size, device=options.device, dtype=options.dtype
    )


def provenance(options: argparse.Namespace, generation: Generation) -> dict[str, Any]:
    """What the captions of this run come from."""
    packages = {}
    for package in ("openai",) if options.server else ("torch", "transformers"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "model": options.model,
        "prompt_sha256": prompt_hash(),
        "generation": asdict(generation),
        "attempts": options.attempts,
        "backend": "server" if options.server else f"transformers, {options.dtype}",
        "packages": packages,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "prompt": build_prompt(["<label>"]),
    }


def describe(clip: Clip, options: argparse.Namespace) -> str:
    """The prompt and the messages about ``clip``, for people to read; an image's data is cut."""
    prompt = build_prompt(clip.labels)
    image: dict[str, Any] = {"type": "image", "image": str(clip.frame)}
    if options.server:
        image = {"type": "image_url", "image_url": {"url": data_url(clip.frame, options.longest_side)[:60] + "..."}}
    shown = json.dumps(messages(prompt, image), indent=1, ensure_ascii=False)
    return f"{prompt}\n\nMessages about {clip.name}:\n{shown}\n\nSHA-256 of the prompt: {prompt_hash()}"
