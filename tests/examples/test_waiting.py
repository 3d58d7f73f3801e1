"""The commands of the example let torch's idle threads sleep, so that one busy core does not stop them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import avsl
import pytest

EXAMPLES = Path(avsl.__file__).parents[1]
PRINT = "import os, sys, avsl; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"


def _loaded(**variables: str) -> str:
    environment = {name: os.environ[name] for name in os.environ if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", PRINT]
    done = subprocess.run(command, cwd=EXAMPLES, env=environment | variables, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


def test_the_package_sets_it_before_torch_is_loaded() -> None:
    assert _loaded() == "False 1000"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "KMP_BLOCKTIME"])
def test_what_the_user_has_set_stays(name: str) -> None:
    assert _loaded(**{name: "1"}) == "False None"


def test_every_command_loads_the_package_before_torch() -> None:
    for path in sorted(EXAMPLES.glob("*.py")):
        lines = path.read_text().splitlines()
        package = [i for i, line in enumerate(lines) if line.strip().startswith(("from avsl", "import avsl"))]
        torch = [i for i, line in enumerate(lines) if line.startswith(("import torch", "from torch"))]
        assert not package or not torch or package[0] < torch[0], path
