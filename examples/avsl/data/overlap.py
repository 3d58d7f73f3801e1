"""Finds test clips that a model has seen in training: the same clips, or other clips of the same videos."""

from __future__ import annotations

from collections.abc import Iterable

from ..clip_ids import ClipId


def overlap_note(trained: Iterable[str], tested: Iterable[str], title: str) -> str:
    """Says how many test clips, or videos of test clips, were trained on; an empty text if there are none.

    Ids that are neither MUSIC's nor VGGSound's name no video, so only equal ids are found.

    Args:
        trained: ids of the training clips.
        tested: ids of the test clips.
        title: the test set, for the text.
    """
    clips = set(trained)
    videos = {_video(name) for name in clips}
    tested = list(dict.fromkeys(tested))
    same = [name for name in tested if name in clips]
    related = [name for name in tested if name not in clips and _video(name) in videos]
    if not same and not related:
        return ""
    first = ", ".join((same + related)[:3])
    return (
        f"{len(same):,} of {len(tested):,} test clips of {title} are also training clips, and {len(related):,} more "
        f"are of the same videos as training clips (first: {first}). The metrics are not those of unseen scenes."
    )


def _video(name: str) -> str:
    try:
        return ClipId.parse(name).video
    except ValueError:
        return name
