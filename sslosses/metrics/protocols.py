"""Named evaluation protocols: they define exactly what CAP, CIoU or AUC means.

Papers of this field print the same names for different computations. Metrics are comparable only if they are computed
by the same protocol. Each protocol follows the public evaluation code of a method: :data:`lvs` (Chen et al., CVPR
2021), :data:`ez_vsl` (Mo and Morgado, ECCV 2022), :data:`avgn` (Mo and Tian, CVPR 2023), :data:`noprior` (Kim et al.,
CVPR 2024), :data:`tvsl` (Mahmud et al., CVPR 2024). :data:`paper` is noprior's computation under the metric names of
the paper of the object-aware losses, which says that it follows noprior; its code is not public. :data:`clean` is ours:
every source counts once, and the order of the maps does not matter.

A protocol starts from the corners of boxes or from masks; reading a file's boxes is not part of it. NoPrior's reader of
MUSIC truncates x and width separately, ``int(224 x) + int(224 width)``. On VGG-SS it truncates the corners, as all
others do, so :data:`noprior` truncates corners. Truncating x and width separately moves the far edges of most MUSIC
boxes by one pixel and metrics by up to 0.4 points. To reproduce this, pass such boxes.
"""

from __future__ import annotations

from sslosses._checks import check_option
from sslosses.metrics._presets import (
    PROTOCOLS,
    acl,
    avgn,
    avgn_test,
    clean,
    dsol,
    ez_vsl,
    fnac,
    fnac_bicubic,
    htf,
    lvs,
    noprior,
    noprior_union,
    paper,
    rcgrad,
    slavc,
    slavc_fixed,
    ssl_tie,
    sslalign,
    sslalign_adaptive,
    tvsl,
)
from sslosses.metrics._protocol import TASKS as TASKS
from sslosses.metrics._protocol import Protocol
from sslosses.metrics._protocol import parse_metric as parse_metric

__all__ = [
    "Protocol",
    "acl",
    "available",
    "avgn",
    "avgn_test",
    "clean",
    "dsol",
    "ez_vsl",
    "fnac",
    "fnac_bicubic",
    "get",
    "htf",
    "lvs",
    "noprior",
    "noprior_union",
    "paper",
    "rcgrad",
    "slavc",
    "slavc_fixed",
    "ssl_tie",
    "sslalign",
    "sslalign_adaptive",
    "tvsl",
]

_PROTOCOLS = {protocol.name: protocol for protocol in PROTOCOLS}


def available() -> tuple[str, ...]:
    """Returns the names of all protocols."""
    return tuple(_PROTOCOLS)


def get(protocol: str | Protocol) -> Protocol:
    """Returns the protocol of that name; a :class:`Protocol` is returned unchanged.

    Raises:
        TypeError: if ``protocol`` is neither a name nor a protocol.
        ValueError: if there is no protocol of that name; the message lists the names.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if not isinstance(protocol, str):
        raise TypeError(f"Expected `protocol` to be a name or a Protocol, but got {type(protocol).__name__}")
    check_option("protocol", protocol, available())
    return _PROTOCOLS[protocol]
