"""The captioning job: asks a model about every clip without captions and records the usable answers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from .answers import AnswerError, parse_answer
from .backend import Backend, Question
from .frames import ClipToCaption
from .records import Records

log = logging.getLogger(__name__)
MAX_UNANSWERED = 20  # clips in a row without any answer: the model must be at fault, not the frames


def caption_missing(
    clips: Sequence[ClipToCaption],
    records: Records,
    open_backend: Callable[[], Backend],
    *,
    attempts: int,
    limit: int | None = None,
) -> int:
    """Captions the clips that ``records`` lacks, and logs a summary.

    Args:
        clips: all clips of the training lists.
        records: captions and failures so far.
        open_backend: loads the model; called only if there is something to caption.
        attempts: answers to ask for before a clip counts as failed.
        limit: number of clips to caption at most; ``None``: all.

    Returns:
        The number of ``clips`` that have failed, in this run or an earlier one.
    """
    started = time.monotonic()
    pending = records.pending(clips)
    batch = pending[:limit]
    if batch:
        log.info("%d clips, %d of them to caption", len(clips), len(batch))
        captioned = caption_clips(open_backend(), batch, records, attempts)
        log.info("Captioned %d clips in %.0f s: %s", captioned, time.monotonic() - started, records.path)
    else:
        log.info("Nothing to do: %s", records.path)
    if len(pending) > len(batch):
        log.info("Remaining: %d of %d clips", len(pending) - len(batch), len(clips))
    reasons = [records.failed[clip.name] for clip in clips if clip.name in records.failed]
    if reasons:
        log.error(
            "Failed: %d of %d clips. First reason: %s. All reasons are in %s; --retry-failed asks again.",
            len(reasons),
            len(clips),
            reasons[0],
            records.failed_path,
        )
    return len(reasons)


def caption_clips(backend: Backend, clips: Sequence[ClipToCaption], records: Records, attempts: int) -> int:
    """Asks about ``clips`` until each has captions or has failed; returns the number of captioned clips.

    Raises:
        ConnectionError: if :data:`MAX_UNANSWERED` clips in a row got no answer at all.
    """
    new_clips, repeated = iter(clips), deque[Question]()
    captioned = unanswered = 0

    def next_question() -> Question | None:
        if repeated:
            return repeated.popleft()
        clip = next(new_clips, None)
        return None if clip is None else Question(clip)

    with (
        logging_redirect_tqdm(),
        tqdm(total=len(clips), unit="clip", smoothing=0.05, dynamic_ncols=True) as bar,
        closing(backend.answers(next_question)) as answers,
    ):
        for answer in answers:
            question = answer.question
            try:
                if answer.text is None:
                    raise AnswerError(answer.error)
                records.write(question.clip, parse_answer(answer.text, question.clip.labels))
                captioned += 1
            except AnswerError as error:
                if answer.text is not None and question.attempt + 1 < attempts:
                    repeated.append(question.again(str(error)))
                    continue
                records.write_failure(question.clip, str(error), answer.text)
            unanswered = unanswered + 1 if answer.text is None else 0
            if unanswered == MAX_UNANSWERED:
                raise ConnectionError(
                    f"{unanswered} clips in a row got no answer. Last reason: {answer.error}. "
                    "Fix the cause, then run again with --retry-failed"
                )
            bar.update()
            bar.set_postfix(failed=bar.n - captioned, refresh=False)
    return captioned
