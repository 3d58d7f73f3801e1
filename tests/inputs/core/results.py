"""Input classes that have a right result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from inputs.cases import Case
from inputs.core.compare import close, finite, refused, succeeds, tensors, total
from inputs.core.subject import ENDS, MASKS, SIZES, Subject

Cases = Iterator[Case]
Class = Callable[[Subject], Cases]

NOT_FINITE = (torch.nan, torch.inf, -torch.inf)
SINGLE, DOUBLE = 1e-3, 1e-9
#: Functions that return their argument if there is one process.
UNCHANGED = ("gather_rows", "sum_over_processes")


def precision(subject: Subject) -> Cases:
    """float64, float32, float16, bfloat16 and float8: the result of float64 for the same numbers."""
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        arguments = subject.arguments(dtype)
        if dtype.itemsize < 2 and ("a" in arguments or subject.name in UNCHANGED):
            continue  # masses of so few digits do not have equal sums
        if subject.light and dtype.itemsize < 4:
            continue
        wide = {name: x.double() if x.is_floating_point() else x for name, x in arguments.items()}
        if "a" in wide and dtype.itemsize == 2:  # as documented: b is scaled to the mass of a
            wide["b"] = wide["b"] * (wide["a"].sum(-1, keepdim=True) / wide["b"].sum(-1, keepdim=True))
        expected = subject(wide)

        def check(result: Any, expected: Any = expected, dtype: torch.dtype = dtype) -> None:
            close(result, expected, DOUBLE if dtype == torch.float64 else SINGLE)
            result_dtype = torch.float64 if dtype == torch.float64 else torch.float32
            if subject.name not in UNCHANGED:
                assert {x.dtype for x in tensors(result).values() if x.is_floating_point()} <= {result_dtype}

        yield succeeds(lambda arguments=arguments: subject(arguments), check)


def layouts(subject: Subject) -> Cases:
    """Transposed, strided, offset, expanded and channels-last tensors: the result of contiguous ones."""
    arguments = subject.arguments()
    expected = subject(arguments)

    def transposed(x: Tensor) -> Tensor:
        return x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))

    def filled(x: Tensor) -> Tensor:
        return torch.full_like(x, torch.nan if x.is_floating_point() else 1)

    def strided(x: Tensor) -> Tensor:
        return torch.stack([x, filled(x)], -1)[..., 0]

    def offset(x: Tensor) -> Tensor:
        return torch.cat([filled(x[:1]), x])[1:]

    def channels_last(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    for change in (transposed, strided, offset, channels_last):
        changed = {name: change(value) for name, value in arguments.items()}
        yield succeeds(lambda changed=changed: subject(changed), lambda result: close(result, expected, DOUBLE))
    if subject.samples:
        same = {n: x[:1].expand(x.shape) if n in subject.samples else x for n, x in arguments.items()}
        copied = {name: value.contiguous() for name, value in same.items()}
        yield succeeds(lambda: subject(same), lambda result: close(result, subject(copied), DOUBLE))


def one_sample(subject: Subject) -> Cases:
    """A batch of one."""
    if "B" in "".join(subject.shapes.values()):
        for dtype in (torch.float64, torch.float32):
            yield succeeds(lambda dtype=dtype: subject(subject.arguments(dtype, B=1)), finite)


def no_samples(subject: Subject) -> Cases:
    """An empty batch: an empty result; a loss is zero and has a graph."""
    if "B" not in "".join(subject.shapes.values()):
        return

    def run() -> Any:
        arguments = {name: x.requires_grad_(subject.has_gradient(name)) for name, x in subject.arguments(B=0).items()}
        result = subject(arguments)
        if subject.none:
            assert total(result) == 0
        if subject.smooth:
            total(result).backward()
            assert all(x.grad is None or not x.grad.any() for x in arguments.values())
        return result

    yield succeeds(run, finite)


def no_references(subject: Subject) -> Cases:
    """K = 0, and masks that are all False."""
    if "foreground" not in subject.shapes:
        return
    yield succeeds(lambda: subject(subject.arguments(K=0)), finite)
    masks = {name: torch.zeros([SIZES[x] for x in letters], dtype=torch.bool) for name, letters in MASKS.items()}
    for name, mask in masks.items():
        yield succeeds(lambda name=name, mask=mask: subject(subject.arguments() | {name: mask}), finite)
    yield succeeds(lambda: subject(subject.arguments() | masks), finite)


def padding(subject: Subject) -> Cases:
    """NaN in references that the masks leave out: the result and gradient of zeros there."""
    if "foreground" not in subject.shapes:
        return
    mask, described = torch.tensor([[True, True], [True, False], [False, False]]), torch.tensor([False, True, True])

    def run(filler: float) -> list[Tensor]:
        arguments = subject.arguments()
        arguments["foreground"][~mask] = filler
        arguments["background"][~(mask.any(1) & described)] = filler
        arguments = {name: x.requires_grad_() for name, x in arguments.items()}
        result = total(subject(arguments | {"source_mask": mask, "background_mask": described}))
        return [result, *torch.autograd.grad(result, list(arguments.values()), allow_unused=True)]

    for filler in NOT_FINITE:

        def check(results: list[Tensor]) -> None:
            for result, expected in zip(results, run(0.0), strict=True):
                assert (result is None and expected is None) or torch.allclose(result, expected, atol=DOUBLE)

        yield succeeds(lambda filler=filler: run(filler), check)


def map_sizes(subject: Subject) -> Cases:
    """Maps of 1 pixel, of one row, of one column."""
    if subject.maps:
        for height, width in ((1, 1), (1, 7), (7, 1)):
            sizes = {"H": height, "W": width}
            expected = subject(subject.arguments(**sizes))
            yield succeeds(
                lambda sizes=sizes: subject(subject.arguments(torch.float32, **sizes)),
                lambda result, expected=expected: (close(result, expected, SINGLE), finite(result)),
            )


def large_maps(subject: Subject) -> Cases:
    """Maps of 112 × 112."""
    if not subject.maps or subject.light:
        return
    sizes = {"H": 112, "W": 112, "B": 1, "K": 1, "C": 2, "G": 2}
    options: dict[str, Any] = {}
    if "epsilon" in subject.option_names():
        if "dense" in subject.variant:
            return  # several matrices of 630 MB
        options = {"epsilon": 10.0, "max_iter": 1, "tol": 1.0}
    elif "max_iterations" in subject.option_names():
        options = {"max_iterations": 10}
    yield succeeds(lambda: subject(subject.arguments(torch.float32, **sizes), **options), finite)


def large_batch(subject: Subject) -> Cases:
    """B = 1,024: the result of each sample alone; a finite result where samples are compared with each other."""
    if "B" not in "".join(subject.shapes.values()) or subject.light:
        return
    sizes = {"B": 1024, "K": 1, "C": 4, "H": 2, "W": 2, "G": 8, "N": 3, "M": 2}
    options = dict(subject.none)
    if "epsilon" in subject.option_names() and "exact" not in subject.variant:
        options |= {"epsilon": 10.0, "tol": 1e-5}  # a few iterations

    def check(result: Any) -> None:
        finite(result)
        for at in (0, 1023):
            alone = {n: x[at : at + 1] if n in subject.samples else x for n, x in arguments.items()}
            if subject.contrast or (subject.none and arguments.keys() & {"audio", "target"}):
                continue  # contrasts the samples
            one = tensors(subject(alone, **options))
            for name, value in tensors(result).items():
                if value.ndim and value.shape[0] == 1024 and one[name].shape[1:] == value.shape[1:]:
                    torch.testing.assert_close(value[at], one[name][0], atol=SINGLE, rtol=SINGLE)

    arguments = subject.arguments(torch.float32, **sizes)
    yield succeeds(lambda: subject(arguments, **options), check)


def not_finite(subject: Subject) -> Cases:
    """NaN, inf or -inf in one sample: NaN there (or no object), and the result of a batch without it for the others."""
    bad, others = 1, [0, 2]
    for name in filter(subject.is_floating, subject.samples):
        for filler in NOT_FINITE[: 1 if subject.light else 3]:

            def run(keep: list[int], spoil: str = name, filler: float = filler) -> tuple[Any, list[Tensor]]:
                arguments = subject.arguments()
                if keep == others:
                    arguments = {n: x[others] if n in subject.samples else x for n, x in arguments.items()}
                else:
                    arguments[spoil][bad].view(-1)[1] = filler
                names = [n for n in subject.samples if subject.smooth and subject.has_gradient(n)]
                leaves = [arguments[n].requires_grad_() for n in names]
                result = subject(arguments, **subject.none)
                if not subject.smooth:
                    return result, []
                rows = [0, 2] if len(keep) == 3 else [0, 1]
                picked = [x[rows].sum() for x in tensors(result).values() if x.requires_grad and x.ndim]
                gradients = torch.autograd.grad(torch.stack(picked).sum(), leaves, allow_unused=True)
                return result, [g if len(keep) == 2 else g[others] for g in gradients if g is not None]

            def check(pair: Any, spoil: str = name, filler: float = filler) -> None:
                result, gradients = pair
                expected, expected_gradients = run(others, spoil, filler)
                tolerance = 1e-2 if "pot-batch" in subject.variant else 1e-6  # its batch runs as long as the slowest
                without = tensors(expected)
                for field, value in tensors(result).items():
                    if value.ndim and value.shape[0] == 3 and without[field].shape == value[others].shape:
                        torch.testing.assert_close(value[others], without[field], atol=tolerance, rtol=tolerance)
                for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
                    torch.testing.assert_close(gradient, expected_gradient, atol=tolerance * 10, rtol=tolerance * 10)
                _spoiled(subject, result, bad, filler)

            yield succeeds(lambda run=run: run([0, 1, 2]), check)


def _spoiled(subject: Subject, result: Any, bad: int, filler: float) -> None:
    if subject.name in ("identify_objects", "cluster_objects"):
        assert not result.valid[bad].any()
    elif subject.name == "hard_mask":
        if filler != filler:
            assert not result[bad].view(-1)[1] or subject.variant == "area"
    elif "similarity" in subject.shapes:
        if filler != filler:  # a mask of infinite similarity is its limit
            assert tensors(result).popitem()[1][bad].isnan().any()
    else:
        main = next(iter(tensors(result).values()))
        assert not main[bad].isfinite().all()
    if hasattr(result, "converged"):
        assert not result.converged.all()


def zero_vectors(subject: Subject) -> Cases:
    """Zero vectors in one argument or in all: a finite result with a finite gradient."""
    if not subject.vectors:
        return
    for zeroed in (*((name,) for name in subject.vectors), subject.vectors):

        def run(zeroed: tuple[str, ...] = zeroed) -> Any:
            arguments = subject.arguments(torch.float32)
            arguments = {n: x * 0 if n in zeroed else x for n, x in arguments.items()}
            return _differentiated(subject, arguments)

        yield succeeds(run, finite)


def duplicates(subject: Subject) -> Cases:
    """Equal references, equal samples and equal pixels: a finite result with a finite gradient."""
    arguments = subject.arguments(torch.float32)
    if "foreground" in arguments:
        equal = arguments | {"foreground": arguments["foreground"][:, :1].expand(-1, SIZES["K"], -1)}
        yield succeeds(lambda: _differentiated(subject, equal), finite)
        same = equal | {"background": equal["foreground"][:, 0]}
        yield succeeds(lambda: _differentiated(subject, same), finite)
    if subject.samples and "positions" not in "".join(subject.samples):
        copies = {n: x[:1].expand(x.shape) if n in subject.samples else x for n, x in arguments.items()}
        yield succeeds(lambda: _differentiated(subject, copies), finite)
    if subject.maps:
        flat = {n: x[..., :1, :1].expand(x.shape) if "H W" in subject.shapes[n] else x for n, x in arguments.items()}
        yield succeeds(lambda: _differentiated(subject, flat), finite)


def _differentiated(subject: Subject, arguments: dict[str, Any]) -> Any:
    if not subject.smooth:
        return subject(arguments)
    constant = {n: x for n, x in arguments.items() if not subject.has_gradient(n)}
    leaves = {n: x.detach().clone().requires_grad_() for n, x in arguments.items() if n not in constant}
    result = subject(leaves | constant)
    total(result).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is None or leaf.grad.isfinite().all(), f"the gradient of {name} is not finite"
    return result


def lengths(subject: Subject) -> Cases:
    """Vectors of length 1e-30, 1e30 and 5e37 in float32, where only directions count: the result of length 1."""
    if not subject.scaled:
        return
    expected = subject(subject.arguments())
    for factor in (1e-30, 1e30, 5e37):
        for scaled in (*((name,) for name in subject.scaled), subject.scaled):
            arguments = subject.arguments(torch.float32)
            arguments = {n: x * factor if n in scaled else x for n, x in arguments.items()}
            yield succeeds(
                lambda arguments=arguments: subject(arguments), lambda result: close(result, expected, SINGLE)
            )


def ends(subject: Subject) -> Cases:
    """Options at the ends of their range (ENDS in ``subject.py``): a finite result with a finite gradient."""
    for name in subject.option_names():
        if name in ("threshold", "area") and name not in subject.options:
            continue  # one excludes the other
        if name == "epsilon" and subject.variant.startswith("exact"):
            continue
        if name == "scaling" and subject.variant.startswith(("exact", "pot-batch")):
            continue
        for value in ENDS.get(name, ())[: 1 if subject.light else None]:
            options = {name: value} | ({"max_iter": 30} if name == "epsilon" else {})
            variant = replace(subject, options=subject.options | options)
            yield succeeds(lambda variant=variant: _differentiated(variant, variant.arguments(torch.float32)), finite)


def gradient_of_any_subset(subject: Subject) -> Cases:
    """requires_grad on any subset of the arguments: the same gradients as with all of them."""
    names = list(filter(subject.has_gradient, subject.shapes))
    if not subject.smooth:
        return

    def gradients(chosen: tuple[str, ...]) -> dict[str, Tensor | None]:
        arguments = subject.arguments()
        leaves = [arguments[name].requires_grad_() for name in chosen]
        result = subject(arguments)
        return dict(zip(chosen, torch.autograd.grad(total(result), leaves, allow_unused=True), strict=True))

    all_gradients = gradients(tuple(names))

    def check(result: dict[str, Tensor | None]) -> None:
        for name, gradient in result.items():
            expected = all_gradients[name]
            assert (gradient is None) == (expected is None), name
            if gradient is not None and expected is not None:
                torch.testing.assert_close(gradient, expected, atol=DOUBLE, rtol=DOUBLE)

    for count in range(1, 2 if subject.light else len(names) + 1):
        for chosen in combinations(names, count):
            yield succeeds(lambda chosen=chosen: gradients(chosen), check)


def without_gradient(subject: Subject) -> Cases:
    """Under ``no_grad`` and ``inference_mode``, and for parameters: the same result."""
    arguments = subject.arguments()
    expected = subject(arguments)
    for mode in (torch.no_grad, torch.inference_mode):

        def run(mode: Callable[[], Any] = mode) -> Any:
            with mode():
                return subject({name: x.clone() for name, x in arguments.items()})

        yield succeeds(run, lambda result: close(result, expected, DOUBLE))
    parameters = {n: torch.nn.Parameter(x) if subject.has_gradient(n) else x for n, x in arguments.items()}
    yield succeeds(lambda: subject(parameters), lambda result: close(result, expected, DOUBLE))


def meta(subject: Subject) -> Cases:
    """Meta tensors: the shapes and dtypes of the result, or an error where they depend on values."""
    arguments = subject.arguments()
    meta_arguments = {name: x.to("meta") for name, x in arguments.items()}

    def check(result: Any) -> None:
        on_meta, expected = tensors(result), tensors(subject(arguments))
        assert on_meta.keys() == expected.keys()
        for name, value in expected.items():
            assert on_meta[name].is_meta, name
            assert on_meta[name].dtype == value.dtype, name
            same = on_meta[name].shape == value.shape
            # The number of objects depends on values: the result has room for the largest number.
            assert same or (subject.variant == "unknown" and on_meta[name].shape[1] == SIZES["H"] * SIZES["W"]), name

    if subject.name == "solve" and not subject.meta:
        yield refused(lambda: subject(meta_arguments), "solver")
    else:
        yield succeeds(lambda: subject(meta_arguments), check)


CLASSES: dict[str, Class] = {
    "float64, float32, float16, bfloat16, float8": precision,
    "transposed, strided, offset, expanded, channels-last": layouts,
    "a batch of one": one_sample,
    "an empty batch": no_samples,
    "no references": no_references,
    "NaN or inf in padded references": padding,
    "maps of 1 pixel, 1 row, 1 column": map_sizes,
    "maps of 112 × 112": large_maps,
    "a batch of 1,024": large_batch,
    "NaN or inf in one sample": not_finite,
    "zero vectors": zero_vectors,
    "equal references, samples, pixels": duplicates,
    "vectors of length 1e-30 and 1e30": lengths,
    "options at the ends of their range": ends,
    "requires_grad on every subset": gradient_of_any_subset,
    "no_grad, inference_mode, parameters": without_gradient,
    "meta tensors": meta,
}
