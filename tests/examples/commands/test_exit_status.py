"""How commands end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from avsl.commands.exit_status import exit_status
from torch.utils.data import DataLoader, Dataset

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


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


PRINTING = """
import sys
from pathlib import Path
from rich.console import Console
sys.path.insert(0, sys.argv[1])
from avsl.commands.exit_status import exit_status

def job():
    console = Console()
    for number in range(2000):
        console.print("line", number)
        print("plain", number)
    Path(sys.argv[2]).write_text("done")

sys.exit(exit_status(job))
"""


@pytest.mark.parametrize("redirection", ["| head -n1 > /dev/null; exit ${PIPESTATUS[0]}", ">&-", "> /dev/null"])
def test_a_job_goes_on_when_nobody_reads_its_output(tmp_path: Path, redirection: str) -> None:
    line = ["bash", "-c", f'"$0" "$@" {redirection}', sys.executable, "-c", PRINTING, str(EXAMPLES)]
    done = subprocess.run([*line, str(tmp_path / "result")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "result").read_text() == "done"


def test_errors_of_this_machine_have_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    assert exit_status(fail) == 2
    assert "is killed by signal" in caplog.text


class Broken(Dataset):
    def __getitem__(self, index: int) -> None:
        raise OSError(f"Expected {index}.jpg to be a picture")

    def __len__(self) -> int:
        return 1


def test_errors_of_a_data_loaders_worker_have_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    assert exit_status(lambda: list(DataLoader(Broken(), num_workers=1))) == 2
    assert caplog.messages == ["OSError: Expected 0.jpg to be a picture"]
