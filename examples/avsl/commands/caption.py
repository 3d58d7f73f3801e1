"""The command ``generate_captions.py``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..captioning.backend import Backend, Generation
from ..captioning.frames import ClipToCaption, data_url, read_clips
from ..captioning.job import caption_missing
from ..captioning.prompt import build_prompt, messages, prompt_hash
from ..captioning.records import Records
from .exit_status import exit_status


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
    """Runs the command. Returns 0 if no clip has failed, 1 if some have, 2 on an error, 130 if interrupted."""
    options = parse_arguments(arguments)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    clips = read_clips(options.data_root, options.lists)
    if options.dry_run:
        print(_preview(clips[0], options))
        return 0
    generation = Generation(options.temperature, options.max_tokens, options.longest_side)
    provenance = _provenance(options, generation)
    with Records(options.out, provenance, force=options.force, retry_failed=options.retry_failed) as records:
        failed = caption_missing(
            clips,
            records,
            lambda: _open_backend(options, generation),
            attempts=options.attempts,
            limit=options.limit,
        )
    return 1 if failed else 0


def _open_backend(options: argparse.Namespace, generation: Generation) -> Backend:
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


def _provenance(options: argparse.Namespace, generation: Generation) -> dict[str, Any]:
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


def _preview(clip: ClipToCaption, options: argparse.Namespace) -> str:
    """The prompt and the messages about ``clip``, for people to read; an image's data is cut."""
    prompt = build_prompt(clip.labels)
    image: dict[str, Any] = {"type": "image", "image": str(clip.frame)}
    if options.server:
        image = {"type": "image_url", "image_url": {"url": data_url(clip.frame, options.longest_side)[:60] + "..."}}
    shown = json.dumps(messages(prompt, image), indent=1, ensure_ascii=False)
    return f"{prompt}\n\nMessages about {clip.name}:\n{shown}\n\nSHA-256 of the prompt: {prompt_hash()}"
