"""How commands end."""

from __future__ import annotations

import pytest
from avsl.commands.exit_status import exit_status


def failing(error: BaseException):
    def job() -> None:
        raise error

    return job


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_what_the_job_returns(returned: int | None, status: int) -> None:
    assert exit_status(lambda: returned) == status


@pytest.mark.parametrize("kind", [OSError, FileNotFoundError, ValueError, ModuleNotFoundError, MemoryError])
def test_a_job_that_cannot_be_done(kind: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    assert exit_status(failing(kind("no such thing"))) == 2
    assert f"{kind.__name__}: no such thing" in caplog.text


@pytest.mark.parametrize(
    ("resumes", "text"), [(True, "Interrupted. Run the same command again to resume."), (False, "Interrupted.")]
)
def test_interrupted(resumes: bool, text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert exit_status(failing(KeyboardInterrupt()), resumes=resumes) == 130
    assert text in caplog.text


def test_a_mistake_of_the_program_is_not_hidden() -> None:
    with pytest.raises(AttributeError):
        exit_status(failing(AttributeError("x")))
