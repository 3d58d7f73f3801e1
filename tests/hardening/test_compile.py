"""Compiling gives one graph for all batch sizes and numbers of sources; a localizer can be exported."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from sslosses import IdentifiedObjects, ObjectAwareObjective, ORILoss, cluster_objects, identify_objects, similarity_map


def objective() -> Callable[..., Tensor]:
    loss = ObjectAwareObjective(trimap_weight=0.5, ori=ORILoss(max_iter=2))
    loss.ori._warned = True
    return loss


def ordered_pairs() -> Callable[..., Tensor]:
    loss = ORILoss(max_iter=2, formulation="distribution")
    loss._warned = True
    return lambda visual, _, *references: loss(visual, *references)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
@pytest.mark.parametrize("make", [objective, ordered_pairs])
def test_no_recompiles_over_batch_and_sources(make: Callable[..., Any], batch: Callable[..., Any]) -> None:
    torch.compiler.reset()
    function = make()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for samples, sources in ((4, 2), (5, 3), (3, 5)):
        inputs = batch(samples, sources)
        for x in inputs:
            torch._dynamo.mark_dynamic(x, 0)
        for x in (inputs[2], inputs[4]):
            torch._dynamo.mark_dynamic(x, 1)
        torch.testing.assert_close(compiled(*inputs), function(*inputs))
    assert counter.frame_count == 1


class Localizer(nn.Module):
    def __init__(self, sources: int | None, clusters: bool = False) -> None:
        super().__init__()
        self.sources = sources
        self.clusters = clusters

    def forward(self, visual: Tensor, audio: Tensor) -> tuple[Tensor, ...]:
        if self.clusters:
            objects = cluster_objects(visual, audio, num_sources=self.sources, max_sources=3)
        else:
            objects = identify_objects(visual, audio, num_sources=self.sources, max_iterations=3)
        return similarity_map(visual, audio), *objects


@pytest.mark.parametrize("clusters", [False, True])
@pytest.mark.parametrize("sources", [2, None])
def test_the_localizer_exports_for_any_batch(sources: int | None, clusters: bool, batch: Callable[..., Any]) -> None:
    samples = torch.export.Dim("samples", min=1)
    localizer = Localizer(sources, clusters)
    program = torch.export.export(localizer, batch()[:2], dynamic_shapes=({0: samples}, {0: samples}))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for count in (1, 2, 7):
        visual, audio = batch(count)[:2]
        for actual, expected in zip(loaded(visual, audio), localizer(visual, audio), strict=True):
            if sources is None and actual.shape != expected.shape:  # one slot per iteration or source
                assert actual.shape[1] == 3
                assert not actual[:, expected.shape[1] :].any()
                actual = actual[:, : expected.shape[1]]
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("sources", [2, (2, 0, 1, 3), (5, 0, 1, 3), None])
def test_clustering_is_one_graph(sources: int | tuple[int, ...] | None, batch: Callable[..., Any]) -> None:
    torch.compiler.reset()
    visual, audio = batch(4)[:2]
    mask = torch.rand(4, *visual.shape[2:], generator=torch.Generator().manual_seed(0)) > 0.2
    number = torch.tensor(sources) if isinstance(sources, tuple) else sources

    def localize(number: int | Tensor | None) -> IdentifiedObjects:
        return cluster_objects(visual, audio, num_sources=number, mask=mask, max_sources=3)

    compiled = torch.compile(localize, fullgraph=True, backend="aot_eager")(number)
    most = number.clamp(max=3) if isinstance(number, Tensor) else number  # more slots can't be in the graph
    for actual, expected in zip(compiled, localize(most), strict=True):
        assert actual.shape[1] == (2 if sources == 2 else 3)
        assert not actual[:, expected.shape[1] :].any()
        torch.testing.assert_close(actual[:, : expected.shape[1]], expected)
