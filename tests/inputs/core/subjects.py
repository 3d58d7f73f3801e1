"""The ordinary arguments of every public function.

A new function needs one more :class:`Subject` in ``_maps``, ``_losses``, ``_transport`` or a file of a family; the test
that compares with the public names fails until it has one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

import sslosses
from inputs.core import classes, pairs, places, text
from inputs.core.subject import SIZES, Subject
from sslosses import distributed, losses, transport


def _solve(solver: str, lazy: bool) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        if lazy:
            points = {name: arguments.pop(name) for name in POINTS}
            arguments["cost"] = transport.pointcloud_cost(**points)
        return transport.solve(**{"solver": solver} | arguments)

    return call


def _dense(**arguments: Any) -> Tensor:
    return transport.pointcloud_cost(**arguments).dense()


FEATURES = {"visual": "B C H W", "audio": "B C"}
CAPTIONS = {"foreground": "B K C", "background": "B C"}
POINTS = {"source": "B N", "target": "B M", "source_positions": "N D", "target_positions": "M D"}
TIGHT = {"tol": 1e-5, "max_iter": 300}


def _losses() -> Iterator[Subject]:
    every = FEATURES | CAPTIONS
    none = {"reduction": "none"}
    common: dict[str, Any] = {"none": none, "maps": True}
    names = tuple(every)
    for rule in ("visual-reference", "reference-reference"):
        options = {"false_negatives": rule}
        yield Subject(
            "object_aware_contrastive_loss", every, options, rule, names, scaled=names, vectors=names, **common
        )
    yield Subject("ObjectAwareContrastiveLoss", every, {}, "", names, scaled=names, vectors=names, light=True, **common)
    names = tuple(FEATURES)
    for name in ("trimap_contrastive_loss", "TriMapContrastiveLoss"):
        light = name[0] == "T"
        yield Subject(name, FEATURES, {}, "", names, scaled=names, vectors=names, light=light, **common)
    shapes = {"visual": FEATURES["visual"], **CAPTIONS}
    names = tuple(shapes)
    per_sample = common | {"samples": names, "scaled": names, "vectors": names}
    for variant, options in {
        "pointcloud": {},
        "distribution": {"formulation": "distribution"},
        "divergence, dense": {"kind": "divergence", "solver": "dense"},
    }.items():
        yield Subject("object_region_isolation_loss", shapes, TIGHT | options, variant, **per_sample)
    yield Subject("ObjectRegionIsolationLoss", shapes, TIGHT, light=True, **per_sample)
    # With a larger epsilon, the potentials of the points with little mass converge to TIGHT's tolerance, too.
    yield Subject("object_region_separation_loss", shapes, TIGHT | {"epsilon": 0.1}, **per_sample)
    yield Subject("ObjectRegionSeparationLoss", shapes, TIGHT, light=True, **per_sample)
    names = tuple(every)
    options = {"trimap_weight": 0.5}
    yield Subject("ObjectAwareObjective", every, options, scaled=names, vectors=names, maps=True, light=True)


def _maps() -> Iterator[Subject]:
    vectors = {"first": "...B C", "second": "...B C"}
    yield Subject("cosine", vectors, samples=tuple(vectors), scaled=tuple(vectors), vectors=tuple(vectors))
    for variant, letters in (("", "B C"), ("several", "B K C")):
        shapes = {"features": "B C H W", "vectors": letters}
        names = tuple(shapes)
        yield Subject("similarity_map", shapes, {}, variant, names, scaled=names, vectors=names, maps=True)
    shapes = {"features": "B C H W", "vectors": "G C"}
    names = tuple(shapes)
    yield Subject("cross_similarity_map", shapes, {}, "", ("features",), scaled=names, vectors=names, maps=True)
    similarity_only: dict[str, Any] = {"shapes": {"similarity": "...B H W"}, "samples": ("similarity",), "maps": True}
    for name in ("foreground_mask", "background_mask", "trimap_masks"):
        yield Subject(name, **similarity_only)
    yield Subject("mask_weights", options={"alpha": 0.3}, **similarity_only)
    for variant, options in (("threshold", {"threshold": 0.2}), ("area", {"area": 0.3})):
        yield Subject("hard_mask", options=options, variant=variant, smooth=False, **similarity_only)
        yield Subject("straight_through_mask", options=options, variant=variant, **similarity_only)
    shapes = {"features": "B C H W", "similarity": "B H W"}
    yield Subject("masked_pool", shapes, {"alpha": 0.3}, "", tuple(shapes), vectors=("features",), maps=True)
    names = tuple(FEATURES)
    common: dict[str, Any] = {"samples": names, "scaled": ("audio",), "vectors": names, "smooth": False, "maps": True}
    yield Subject("identify_objects", FEATURES, {"num_sources": 2}, "known", **common)
    yield Subject("identify_objects", FEATURES, {}, "unknown", **common | {"meta": False})
    common["scaled"] = names
    yield Subject("cluster_objects", FEATURES, {"num_sources": 2}, "known", **common)
    most = SIZES["H"] * SIZES["W"]  # as in identify_objects, the largest number is that of the pixels
    yield Subject("cluster_objects", FEATURES, {"max_sources": most}, "unknown", **common | {"meta": False})


def _transport() -> Iterator[Subject]:
    matrix = {"cost": "...B N M", "a": "...B N", "b": "...B M"}
    points = POINTS | {"a": "...B N", "b": "...B M"}
    common: dict[str, Any] = {"name": "solve", "options": TIGHT | {"epsilon": 0.5}}
    for solver in transport.SOLVERS:
        # KeOps is slow for many small calls, and would take most of the time of all classes.
        options: dict[str, Any] = {"meta": solver in ("auto", "dense"), "light": solver == "geomloss-keops"}
        if solver == "exact":
            options["options"] = {"epsilon": 0.0}
        if solver != "geomloss-keops":
            yield Subject(
                **common | options, shapes=matrix, variant=solver, samples=tuple(matrix), call=_solve(solver, False)
            )
        names = ("source", "target", "a", "b")
        yield Subject(
            **common | options,
            shapes=points,
            variant=f"{solver}, lazy",
            samples=names,
            call=_solve(solver, True),
        )
    yield Subject("pointcloud_cost", POINTS, samples=("source", "target"), call=_dense)
    yield Subject("gather_rows", {"rows": "B C"}, samples=("rows",))
    yield Subject("sum_over_processes", {"value": "...B C"}, samples=("value",))


SUBJECTS = (
    *_maps(),
    *_losses(),
    *classes.subjects(),
    *pairs.subjects(),
    *places.subjects(),
    *text.subjects(),
    *_transport(),
)

#: Public names without tensor arguments, or with results as arguments: where they are tested.
OTHERS = {
    "OCALoss": "another name",
    "ORILoss": "another name",
    "ClassGrouping": "tests/losses/baselines/test_class_grouping.py",
    "TextGuidedHeads": "tests/losses/baselines/test_text_guided.py",
    "available": "tests/transport/test_solve.py",
    "check_solver": "errors of options",
    "grid_cost": "errors of options",
    "grid_positions": "errors of options",
    "lazy_grid_cost": "errors of options",
    "process_count": "tests/test_distributed.py",
    "warn_if_not_converged": "tests/transport/test_gradients.py",
}


def public_functions() -> set[str]:
    """Names of all public functions and modules, from the packages themselves."""
    exported = {name: getattr(module, name) for module in (sslosses, losses, transport) for name in module.__all__}
    own = {name: value for name, value in vars(distributed).items() if name[0] != "_"}
    own = {name: value for name, value in own.items() if getattr(value, "__module__", "") == distributed.__name__}
    return {name for name, value in (exported | own).items() if inspect.isfunction(value) or _is_module(value)}


def _is_module(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)
