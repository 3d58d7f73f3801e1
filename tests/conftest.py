"""Settings of the test processes."""

import os

import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    # Threads of several workers on the same cores wait for each other, at several times the cost.
    torch.set_num_threads(1)
