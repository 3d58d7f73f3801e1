"""Define evaluation protocols of your own, and score the same maps by each.

A protocol is a frozen record of choices. `replace` changes some choices of an existing protocol; `Protocol(...)` makes
one from scratch. A changed protocol without a new name is marked "(changed)", so that nobody takes its scores for
those of the original.

    python examples/own_protocol.py
"""

import torch
from torch.nn.functional import interpolate

from sslosses.metrics import SoundLocalization, chance_levels, protocols

# Mark the fifth of the frame where the map is highest, instead of half of the frame.
fifth = protocols.paper.replace(
    name="fifth",
    binarization="area fraction",
    threshold=0.2,
    mixture_metrics=("CAP", "CIoU@0.5", "AUC"),
)

# Map j belongs to source j, and what counts is the mean cIoU at a threshold of 0.6.
by_position = protocols.Protocol(
    "by position",
    mixture_metrics=("mCIoU", "CIoU@0.5"),
    single_metrics=("mCIoU", "CIoU@0.5"),
    upsampling="bilinear",
    binarization="from value",
    threshold=0.6,
    assignment="position",
)

unnamed = protocols.paper.replace(mixture_metrics=("CAP", "CIoU@0.1"))

# 8 frames of two objects each: truths (B, K, 224, 224), and noisy maps (B, M, 14, 14) in the order of the sources.
torch.manual_seed(0)
truths = torch.zeros(8, 2, 224, 224, dtype=torch.bool)
truths[:, 0, 60:160, 10:110] = True
truths[:, 1, 60:160, 115:215] = True
maps = interpolate(truths.float(), 14, mode="area") + 0.5 * torch.rand(8, 2, 14, 14)

for protocol in (protocols.paper, fifth, by_position, unnamed):
    print(protocol)
    metric = SoundLocalization(protocol, task="mixtures")
    metric.update(maps, truths)
    chance = chance_levels(truths, protocol, resolution=(14, 14))
    print(metric.result(chance=chance).to_markdown(), end="\n\n")
