"""Messages of the argument checks for wrong types and devices."""

import pytest
import torch

from sslosses._checks import check_mask, check_shapes
from sslosses._optional import MissingDependencyError, require


def test_a_mask_has_to_be_a_boolean_tensor() -> None:
    with pytest.raises(TypeError, match="Expected `mask` to be a tensor, but got list"):
        check_mask("mask", [True])
    with pytest.raises(TypeError, match=r"Expected `mask` to have dtype torch.bool, but got torch.float32"):
        check_mask("mask", torch.ones(2))


def test_devices_have_to_agree() -> None:
    with pytest.raises(ValueError, match=r"Expected `b` to be on the device of `a` \(cpu\), but got meta"):
        check_shapes(a=(torch.ones(2), "B"), b=(torch.ones(2, device="meta"), "B"))


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(
        MissingDependencyError, match=r"This needs .*`no_such_package`.* pip install 'sslosses\[more\]'"
    ):
        require("no_such_package.part", extra="more", purpose="This")
    with pytest.raises(MissingDependencyError, match=r"pip install sslosses$"):
        require("no_such_package", extra=None, purpose="This")
