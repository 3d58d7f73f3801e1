"""Results of the Triton kernels: on a GPU or in Triton's interpreter, and compiled for a GPU in an emulator."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", minversion="3.4")
CASES = Path(__file__).with_name("gpu_cases.py")


def run_cases(*options, **environment):
    # In a separate process, because the interpreter is chosen for a whole process when triton is imported. Options of
    # this run (coverage, an order of tests) are not passed on: a tracer doubles the interpreter's time.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS" and not k.startswith("COVERAGE_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options, str(CASES)]
    completed = subprocess.run(
        command, env=inherited | environment, cwd=CASES.parents[3], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert re.search(r"\d+ passed", completed.stdout), completed.stdout


@pytest.mark.slow
def test_cases():
    run_cases(**({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}))


@pytest.mark.slow
@pytest.mark.parametrize("cases", ["float32", "not float32"])  # two tests, so that two workers share them
def test_cases_as_compiled_for_an_h100(cases, tmp_path):
    # Hides a GPU from torch, because the emulator needs all numbers on the CPU.
    path = os.pathsep.join([str(CASES.parent), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "TRITON_CACHE_DIR": str(tmp_path)}
    run_cases("-p", "gpu_emulated", "-k", cases, TRITON_INTERPRET="0", **environment)
