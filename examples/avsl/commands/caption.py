"""The command ``generate_captions.py``."""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..captioning.backend import Backend, Generation
from ..captioning.frames import ClipToCaption, data_url, read_clips
from ..captioning.job import caption_missing
from ..captioning.parts import check_joined, check_part, join, part_path
from ..captioning.prompt import build_prompt, prompt_hash
from ..captioning.records import Records, failed_path, recorded_ids
from ..model_names import advice, check_name
from ..parts import add_part_options
from .exit_status import exit_status

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of ``generate_captions.py``."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Let a multimodal language model write foreground and background captions of the training frames. "
        "Run the same command again to resume.",
    )
    add = parser.add_argument
    add("--data-root", type=Path, required=True, help="data folder with frames/<id>.jpg and metadata/")
    add("--lists", nargs="+", default=[], metavar="NAME", help="training lists in metadata/ (default: all known lists)")
    add("--model", help="hub name or folder of the model; with --server, the model's name on the server")
    add(
        "--server",
        nargs="+",
        metavar="URL",
        help="base URLs of OpenAI-compatible servers, e.g. http://localhost:8000/v1",
    )
    add("--out", type=Path, help="output file (default: metadata/captions.jsonl in the data folder)")
    add_part_options(parser)
    add("--limit", type=_positive, help="maximum number of clips to caption in this run (default: all)")
    add("--attempts", type=_positive, default=3, help="attempts before a clip counts as failed (default: %(default)s)")
    add("--retry-failed", action="store_true", help="ask again about clips that failed in earlier runs")
    add("--force", action="store_true", help="add to a file with captions of another model or prompt")
    add(
        "--dry-run",
        action="store_true",
        help="print the prompt about the first clip and how many clips would be asked about; call no model",
    )
    generation = Generation()
    add(
        "--temperature",
        type=_at_least_zero,
        default=generation.temperature,
        help="sampling temperature of repeated questions (default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=_positive,
        default=generation.max_tokens,
        help="maximum number of tokens per answer (default: %(default)s)",
    )
    add(
        "--longest-side",
        type=_positive,
        default=generation.longest_side,
        help="scale frames down to at most this many pixels per side (default: %(default)s)",
    )
    add = parser.add_argument_group("local model").add_argument
    add("--batch-size", type=_positive, default=8, help="frames per batch (default: %(default)s)")
    add("--device", default="auto", help="torch device (default: CUDA if available)")
    add("--dtype", default="auto", help="torch dtype, e.g. bfloat16 (default: the checkpoint's)")
    add = parser.add_argument_group("server").add_argument
    add("--concurrency", type=_positive, default=16, help="open requests per server (default: %(default)s)")
    add("--timeout", type=_above_zero, default=120.0, help="time limit per request in seconds (default: %(default)s)")
    add("--retries", type=_count, default=6, help="retries of a request without an answer (default: %(default)s)")
    add("--first-wait", type=_above_zero, default=1.0, help="seconds before the first retry (default: %(default)s)")
    add(
        "--longest-wait",
        type=_above_zero,
        default=300.0,
        help="maximum seconds before a retry, even if the server asks for more (default: %(default)s)",
    )
    add("--requests-per-minute", type=_above_zero, help="limit over all servers (default: no limit)")
    add(
        "--token-field",
        choices=("max_tokens", "max_completion_tokens"),
        default="max_tokens",
        help="field of the request for --max-tokens; models such as GPT-5 want the second one (default: %(default)s)",
    )
    add(
        "--no-temperature",
        action="store_true",
        help="send no temperature, which models such as GPT-5 refuse; servers then choose it for all answers",
    )
    add(
        "--key-variable",
        default="OPENAI_API_KEY",
        help="environment variable that contains the API key (default: %(default)s)",
    )
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the options of ``generate_captions.py``."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not options.model and not options.dry_run:
        parser.error("--model is required")
    if options.no_temperature and not options.server:
        parser.error("argument --no-temperature: expected --server beside it")
    for url in options.server or ():
        if not url.lower().startswith(("http://", "https://")):
            parser.error(f"argument --server: expected an address like http://localhost:8000/v1, but got {url!r}")
    options.out = options.out or options.data_root / "metadata" / "captions.jsonl"
    return options


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected more than 0, but got {value:g}")
    return value


def _at_least_zero(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected at least 0, but got {value:g}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected at least 0, but got {value}")
    return value


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
    if options.model and not options.server:
        check_name("model", options.model)
    clips = read_clips(options.data_root, options.lists, options.part)
    if options.dry_run:
        print(_preview(clips, options))
        return 0
    temperature = None if options.no_temperature else options.temperature
    generation = Generation(temperature, options.max_tokens, options.longest_side)
    provenance = _provenance(options, generation)
    if options.join:
        return _join(clips, provenance, options)
    path, joined = options.out, None
    if options.part:
        check_part(options.out, options.part)
        path, joined = part_path(options.out, options.part), options.out
    else:
        check_joined(options.out)
    with Records(path, provenance, force=options.force, retry_failed=options.retry_failed, joined=joined) as records:
        failed = caption_missing(
            clips,
            records,
            lambda: _open_backend(options, generation),
            attempts=options.attempts,
            limit=options.limit,
        )
    if options.part:
        log.info("After all %d parts, run the same command with --join in place of --part", options.part.count)
    return 1 if failed else 0


def _join(clips: Sequence[ClipToCaption], provenance: Mapping[str, Any], options: argparse.Namespace) -> int:
    failed = join(options.out, clips, provenance, force=options.force)
    log.info("Joined the captions of %d clips: %s", len(clips) - failed, options.out)
    if failed:
        log.error("Failed: %d of %d clips. All reasons are in %s", failed, len(clips), failed_path(options.out))
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
                options.longest_wait,
                requests_per_minute=options.requests_per_minute,
            ),
            key=api_key(options.key_variable),
            token_field=options.token_field,
        )
    from ..captioning.local import LocalModel

    try:
        return LocalModel(
            options.model, generation, batch_size=options.batch_size, device=options.device, dtype=options.dtype
        )
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(f"`model` {options.model!r} can't be loaded: {reason}{advice('model', options.model)}") from error


def _provenance(options: argparse.Namespace, generation: Generation) -> dict[str, Any]:
    """How the captions of this run are made."""
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


def _preview(clips: Sequence[ClipToCaption], options: argparse.Namespace) -> str:
    """What would be asked: the number of clips, the prompt about the first one, and what goes with it."""
    clip, pending = clips[0], _pending(clips, options)
    image = f"the picture {clip.frame}"
    if options.server:
        image = f"{image}, as {data_url(clip.frame, options.longest_side)[:60]}..."
    return (
        f"{len(pending):,} of {len(clips):,} clips would be asked about, each up to {options.attempts} times.\n\n"
        f"Prompt about {clip.name}, which follows {image}:\n\n{build_prompt(clip.labels)}\n\n"
        f"SHA-256 of the prompt: {prompt_hash()}"
    )


def _pending(clips: Sequence[ClipToCaption], options: argparse.Namespace) -> Sequence[ClipToCaption]:
    """The clips that this run would ask about. Reads the files of earlier runs and changes nothing."""
    done = recorded_ids(options.out, failures=not options.retry_failed)
    if options.part:
        done |= recorded_ids(part_path(options.out, options.part), failures=not options.retry_failed)
    return [clip for clip in clips if clip.name not in done][: options.limit]
