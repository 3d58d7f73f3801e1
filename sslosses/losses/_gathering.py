"""The losses' choice between the samples of all processes and those of this process."""

from __future__ import annotations

import warnings
from typing import Any

from sslosses._checks import check_flag
from sslosses.distributed import NotGatheredWarning, process_count


def check_gathering(gather_distributed: Any) -> None:
    """Raise unless the option is True, False or None."""
    if gather_distributed is not None:
        check_flag("gather_distributed", gather_distributed)


def gathers(gather_distributed: bool | None, name: str) -> bool:
    """Whether the loss ``name`` is that of all processes; warns if that was not chosen and makes a difference."""
    if gather_distributed is None:
        warn_if_not_gathered(name)
        return False
    return gather_distributed


def warn_if_not_gathered(name: str) -> bool:
    """Warn, and return True, if several processes are up."""
    count = process_count()
    if count == 1:
        return False
    warnings.warn(
        f"{name} is computed on the samples of this process only, but {count} processes are up and "
        "`gather_distributed` was not chosen. Its gradient differs from that of one process with the whole batch. Pass "
        "gather_distributed=True to compute it on the samples of all processes, or False to keep it as it is",
        NotGatheredWarning,
        stacklevel=4,
    )
    return True


# torch.compile can't trace warnings, so it calls the function while it compiles. This is the mark that
# torch.compiler.assume_constant_result sets, which would import all of the compiler.
setattr(warn_if_not_gathered, "_dynamo_marked_constant", True)  # noqa: B010
