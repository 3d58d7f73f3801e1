"""Tells errors of this machine (no memory, no space, no file descriptors) from those of the data that are read."""

from __future__ import annotations

import errno

_LACKS = frozenset(
    {
        *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
        *(errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),  # also a mount that went away
    }
)


def of_this_machine(error: BaseException) -> bool:
    """Whether ``error`` says that this machine lacks something. It must stop the job and not count against a file."""
    if isinstance(error, RuntimeError):  # torch has no error of its own for a lack of memory on a CPU
        return "out of memory" in str(error) or "allocate memory" in str(error)
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _LACKS
