"""The page on training loops of one's own: its program for two processes, and its Lightning module."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch.utils.data import DataLoader, TensorDataset

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "guide" / "own_loop.md").read_text(encoding="utf-8")


def work(rank: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    start = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda backend: start(backend, store=store, rank=rank, world_size=2)
    with Path(folder, f"{rank}.txt").open("w") as file, contextlib.redirect_stdout(file):
        runpy.run_path(f"{folder}/two_processes.py")


def test_two_processes_print_what_the_page_says(tmp_path):
    code, output = re.search(
        r"`two_processes.py`:\n\n```{code-block} python\n(.*?)^```.*?```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE
    ).groups()
    (tmp_path / "two_processes.py").write_text(code)
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    assert (tmp_path / "0.txt").read_text() == output
    assert (tmp_path / "1.txt").read_text() == ""


@pytest.mark.filterwarnings("ignore")  # Lightning's, of workers and deprecated parts of torch
def test_the_lightning_module_logs_terms_and_metrics(tmp_path):
    import lightning  # here, because the processes of the other test read this file

    first, module = (
        re.search(rf"^```python\n({start}.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1]
        for start in ("import torch\nfrom torch import nn", "import lightning\n")
    )
    scope: dict[str, type] = {}
    exec(first, scope)
    exec(module, scope)
    masks = torch.zeros(4, 2, 224, 224)
    masks[:, 0, :, :100] = masks[:, 1, :, 120:] = 1
    frames, sounds, *captions = (torch.randn(4, *size) for size in ((16, 7, 7), (32,), (2, 64), (64,)))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    loaders = (
        DataLoader(TensorDataset(*tensors), 2) for tensors in ((frames, sounds, *captions), (frames, sounds, masks))
    )
    trainer.fit(scope["Localizer"](), *loaders)
    names = {"loss/total", "loss/oca", "loss/ori", "val/CAP", "val/CIoU", "val/AUC", "val/Coverage"}
    assert set(trainer.callback_metrics) == names
