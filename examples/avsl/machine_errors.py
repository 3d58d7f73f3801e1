"""Tells errors of this machine (no memory, no space, no file descriptors) from those of the data that are read."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_LACKS = frozenset(
    {
        *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
        *(errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),  # also a mount that went away
    }
)
#: The last one is of a worker that was killed, as the kernel does when memory runs out.
_LACKS_IN_WORDS = ("out of memory", "allocate memory", "can't start new thread", "DataLoader worker (pid")


def of_this_machine(error: BaseException) -> bool:
    """Whether ``error`` says that this machine lacks something. It must stop the job and not count against a file.

    A reader may have wrapped the error into one of its own that names the file.
    """
    return any(_is_lack(e) for e in chain(error))


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yields ``error``, the errors that it was raised from, and the members of groups, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        e = waiting.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        yield e
        members = getattr(e, "exceptions", ())
        waiting += [x for x in (e.__cause__, e.__context__, *members) if isinstance(x, BaseException)]


def _is_lack(error: BaseException) -> bool:
    if isinstance(error, RuntimeError):  # torch and Python have no errors of their own for these
        return any(text in str(error) for text in _LACKS_IN_WORDS)
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _LACKS
