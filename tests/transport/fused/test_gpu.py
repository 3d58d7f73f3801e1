"""The answers of the Triton kernels: on a GPU, or in Triton's interpreter, and of what is compiled for a GPU."""

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
    # In a process of their own: the interpreter is a property of the whole process, from the import of triton on.
    # What this run was asked to do (coverage, an order) is not for that one: a tracer doubles the interpreter's time.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS" and not k.startswith("COVERAGE_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options, str(CASES)]
    done = subprocess.run(
        command, env=inherited | environment, cwd=CASES.parents[3], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout), done.stdout


@pytest.mark.slow
def test_cases():
    run_cases(**({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}))


@pytest.mark.slow
def test_cases_as_compiled_for_an_h100(tmp_path):
    # Without a GPU that torch could see: the kernels' numbers are on the CPU here.
    path = os.pathsep.join([str(CASES.parent), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "TRITON_CACHE_DIR": str(tmp_path)}
    run_cases("-p", "gpu_emulated", TRITON_INTERPRET="0", **environment)
