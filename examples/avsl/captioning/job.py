"""The captioning job: asks a model about every clip without captions and records the usable answers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from .answers import AnswerError, Captions, parse_answer
from .backend import Answer, Backend, Question
from .frames import ClipToCaption
from .masking import one_line
from .records import Records

log = logging.getLogger(__name__)
MAX_UNANSWERED = 20  # clips in a row without any answer: the server must be at fault, not the frames
MAX_UNUSED = 30  # clips in a row whose answers can't be used: the model must be at fault


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
            one_line(reasons[0]),
            records.failed_path,
        )
    return len(reasons)


def caption_clips(backend: Backend, clips: Sequence[ClipToCaption], records: Records, attempts: int) -> int:
    """Asks about ``clips`` until each has captions or has failed; returns the number of captioned clips.

    Raises:
        ConnectionError: if :data:`MAX_UNANSWERED` clips in a row, or all, got no answer. They are not recorded.
        ValueError: if :data:`MAX_UNUSED` clips in a row have failed. They are recorded.
    """
    new_clips, repeated = iter(clips), deque[Question]()
    failures = _Failures(records)
    captioned = 0

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
                records.write(question.clip, _captions(answer))
            except AnswerError as error:
                if answer.text is not None and question.attempt + 1 < attempts:
                    repeated.append(question.again(str(error)))
                    continue
                failures.add(answer, str(error))
            else:
                failures.end_of_row()
                captioned += 1
            bar.update()
            bar.set_postfix(failed=bar.n - captioned, refresh=False)
        failures.end()
    return captioned


def _captions(answer: Answer) -> Captions:
    if answer.text is None or answer.error:
        raise AnswerError(answer.error)
    return parse_answer(answer.text, answer.question.clip.labels)


class _Failures:
    """Records failed clips, and ends the job if so many fail in a row that the clips can't be the reason."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._unanswered: list[tuple[ClipToCaption, str]] = []
        self._unused = 0
        self._any_answer = False

    def add(self, answer: Answer, reason: str) -> None:
        clip = answer.question.clip
        if not answer.asked:
            self._records.write_failure(clip, reason, None)
            return
        if answer.text is None:
            self._unanswered.append((clip, reason))
        else:
            self._write_unanswered()
            self._records.write_failure(clip, reason, answer.text)
        self._unused += 1
        if len(self._unanswered) == MAX_UNANSWERED:
            self._stop()
        if self._unused == MAX_UNUSED:
            self._write_unanswered()
            raise ValueError(
                f"None of the answers about {MAX_UNUSED} clips in a row can be used. Last reason: {reason}. "
                f"All reasons are in {self._records.failed_path}. Fix the cause, then run again with --retry-failed"
            )

    def end_of_row(self) -> None:
        """Counts anew, after a clip got captions."""
        self._write_unanswered()
        self._unused = 0

    def end(self) -> None:
        """Ends the job after its last clip."""
        if self._unanswered and not self._any_answer:
            self._stop()
        self._write_unanswered()

    def _stop(self) -> None:
        raise ConnectionError(
            f"{len(self._unanswered)} clips in a row got no answer. Last reason: {self._unanswered[-1][1]}. "
            "Fix the cause, then run the same command again: these clips are not recorded as failed"
        )

    def _write_unanswered(self) -> None:
        """Records clips without an answer, once it is known that the server answers others."""
        self._any_answer = True
        for clip, reason in self._unanswered:
            self._records.write_failure(clip, reason, None)
        self._unanswered.clear()
