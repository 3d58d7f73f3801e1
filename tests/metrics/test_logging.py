"""Metrics in a Lightning module, as the page on evaluation shows it."""

import re
from pathlib import Path

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sslosses.metrics import SoundLocalization

PAGE = Path(__file__).resolve().parents[2] / "docs" / "method" / "evaluation.md"


@pytest.mark.filterwarnings("ignore")  # Lightning's, of workers and deprecated parts of torch
def test_the_page_logs_the_metrics_of_all_samples():
    (code,) = re.findall(r"```python\n(import lightning\n.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    scope: dict[str, type] = {}
    exec(code, scope)
    generator = torch.Generator().manual_seed(0)
    truths = torch.zeros(6, 2, 224, 224, dtype=torch.bool)
    truths[:, 0, 60:160, 10:110] = truths[:, 1, 60:160, 115:215] = True
    maps = truths[..., ::32, ::32] + torch.rand(6, 2, 7, 7, generator=generator)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    (logged,) = trainer.validate(scope["Localizer"](), DataLoader(TensorDataset(maps, truths), 4), verbose=False)
    metrics = SoundLocalization("paper")(maps, truths)
    assert logged.keys() == {"val/CAP", "val/CIoU", "val/AUC", "val/Coverage"}
    assert logged["val/Coverage"] == 1
    for name, metric in (("CAP", "CAP"), ("AUC", "AUC"), ("CIoU", "CIoU@0.3")):
        assert logged[f"val/{name}"] == pytest.approx(float(metrics[metric]), abs=1e-6)
