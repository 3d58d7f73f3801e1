"""Videos: which clips are frames of one video. They are no independent samples."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sslosses._checks import check_option

#: How many numbers follow the video's id in a clip's id: the part and the frame, or the start in seconds.
_NUMBERS: Mapping[str, int] = {"music": 2, "vggsound": 1, "flickr": 0}
DATA_SETS = tuple(_NUMBERS)


def video_of(clip: str, data_set: str) -> str:
    """Returns the id of the video that a clip is from.

    A clip of MUSIC is ``<video>_<part>_<frame>``, one of VGG-SS or VGGSound ``<video>_<start>``. A frame of Flickr is
    its own video, and so is a clip whose id has another form. The id of a mixture joins those of its videos by "+":
    mixtures that share only one of their videos count as different.

    Args:
        clip: id of the clip, as in :class:`~sslosses.annotations.Record`.
        data_set: ``"music"``, ``"vggsound"`` (also for VGG-SS) or ``"flickr"``.

    Raises:
        ValueError: if there is no such data set.

    Example:
        >>> from sslosses.annotations import video_of
        >>> video_of("HnUOaSfTA6c_000_00007", "music"), video_of("-_-TDDxoaAc_000032", "vggsound")
        ('HnUOaSfTA6c', '-_-TDDxoaAc')
        >>> video_of("zpWuikVorYg_000032+Rtg1SUrxOPY_000130", "vggsound")
        'zpWuikVorYg+Rtg1SUrxOPY'
    """
    check_option("data_set", data_set, DATA_SETS)
    numbers = r"_\d+" * _NUMBERS[data_set]
    return "+".join(re.sub(f"(?<=.){numbers}\\Z", "", part, count=1, flags=re.ASCII) for part in clip.split("+"))
