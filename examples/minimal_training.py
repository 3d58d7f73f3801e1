"""Train two linear heads with the library's objective in a plain PyTorch loop.

The data are random tensors. Every frame has a sounding object in one half and a silent one of another class in the
other half, both with noise. Captions describe both. The program prints how often the map of the sound peaks on the
sounding object, before and after training.

    python examples/minimal_training.py
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sslosses import ObjectAwareObjective, OCALoss, similarity_map

CLASSES, SIDE, RAW, DIM = 8, 8, 64, 32
torch.manual_seed(0)
looks, sounds, words = torch.randn(
    3, CLASSES, RAW
)  # what an object of each class looks and sounds like, and its caption


class Batch(NamedTuple):
    frames: Tensor  # (B, RAW, SIDE, SIDE), as an image network would give them
    sounds: Tensor  # (B, RAW), as an audio network would give them
    foreground: Tensor  # (B, 1, RAW), caption of the sounding object
    background: Tensor  # (B, RAW), caption of the silent object
    truths: Tensor  # (B, SIDE, SIDE), where the sounding object is


def random_batch(size: int) -> Batch:
    sounding = torch.randint(CLASSES, (size,))
    silent = (sounding + torch.randint(1, CLASSES, (size,))) % CLASSES
    left = torch.rand(size) < 0.5
    half = torch.arange(SIDE) < SIDE // 2
    truths = (half == left[:, None])[:, None].expand(-1, SIDE, -1)  # (B, SIDE, SIDE)
    objects = torch.where(truths[:, None], looks[sounding, :, None, None], looks[silent, :, None, None])
    frames = objects + 2 * torch.randn(size, RAW, SIDE, SIDE)
    audio = sounds[sounding] + torch.randn(size, RAW)
    return Batch(frames, audio, words[sounding][:, None], words[silent], truths)


class Localizer(nn.Module):  # one linear layer per modality into a common space
    def __init__(self) -> None:
        super().__init__()
        self.visual_head = nn.Conv2d(RAW, DIM, 1)
        self.audio_head = nn.Linear(RAW, DIM)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.visual_head(batch.frames), self.audio_head(batch.sounds)


@torch.no_grad()
def peaks_on_object(model: Localizer, batch: Batch) -> float:
    """Share of the frames whose map of the sound is highest on the sounding object."""
    maps = similarity_map(*model(batch)).flatten(1)
    peak = one_hot(maps.argmax(1), maps.shape[1]).bool()
    return float((batch.truths.flatten(1) & peak).any(1).float().mean())


model = Localizer()
# A temperature of 0.07 suits short trainings. The paper states none, so the default is 1.
objective = ObjectAwareObjective(oca=OCALoss(temperature=0.07))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
project = torch.randn(RAW, DIM) / RAW**0.5  # stands for a frozen text encoder
test = random_batch(256)
print(f"before training: {100 * peaks_on_object(model, test):.0f} % of the maps peak on the sounding object")
for step in range(1, 61):
    batch = random_batch(32)
    visual, audio = model(batch)
    terms = objective.terms(visual, audio, batch.foreground @ project, batch.background @ project)
    optimizer.zero_grad()
    terms.total.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step}: total {terms.total:.3f}, OCA {terms.oca:.3f}, ORI {terms.ori:.3f}")
print(f"after training: {100 * peaks_on_object(model, test):.0f} % of the maps peak on the sounding object")
