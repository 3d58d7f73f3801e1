import dataclasses

import pytest

from sslosses.metrics import Protocol, SoundLocalization, protocols


def test_protocols_are_frozen_printable_and_found_by_name():
    assert protocols.available() == (
        *("lvs", "ez-vsl", "avgn", "noprior", "tvsl", "paper", "clean"),
        *("slavc", "slavc-fixed", "sslalign", "sslalign-adaptive", "fnac", "fnac-bicubic", "htf", "ssl-tie", "rcgrad"),
        *("acl", "dsol", "avgn-test", "noprior-union"),
    )
    for name in protocols.available():
        assert getattr(protocols, name.replace("-", "_")) is protocols.get(name)
        assert protocols.get(name).name == name
    assert protocols.get("paper") is protocols.paper
    assert protocols.get(protocols.noprior) is protocols.noprior
    assert "bicubic" in str(protocols.paper)
    # the rest of the weight is that of the model's map
    assert "object prior at 0.6;" in str(protocols.get("ez-vsl"))
    assert "object prior at 0.1 in [0, 2.5];" in str(protocols.slavc)
    assert "bicubic" in repr(protocols.paper)
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocols.paper.size = 5


def test_unknown_protocol_lists_those_available():
    with pytest.raises(ValueError, match=r"'paper', 'clean', .*'noprior-union', but got 'lvs2'"):
        SoundLocalization("lvs2")
    with pytest.raises(TypeError, match="a name or a Protocol"):
        protocols.get(3)


def test_derived_protocol_is_checked_and_renamed():
    derived = protocols.paper.replace(mixture_metrics=("CIoU@0.25", "CIoU@1"), size=64)
    assert derived.name == "paper (changed)"
    assert derived.replace(size=32).name == "paper (changed)"
    assert derived.replace(name="mine").name == "mine"
    assert SoundLocalization(derived).metrics == ("CIoU@0.25", "CIoU@1")
    with pytest.raises(ValueError, match="'above upper median'"):
        protocols.paper.replace(binarization="at 0.5")
    with pytest.raises(ValueError, match="CAP, AP, CIoU@t"):
        protocols.paper.replace(mixture_metrics=("mAP",))
    with pytest.raises(ValueError, match="0 < t <= 1"):
        protocols.paper.replace(mixture_metrics=("CIoU@30",))
    with pytest.raises(ValueError, match="`threshold` to be None"):
        protocols.paper.replace(threshold=0.3)
    with pytest.raises(TypeError, match="`threshold` to be a finite number"):
        protocols.tvsl.replace(threshold=None)
    with pytest.raises(ValueError, match="`tau` to be None"):
        protocols.lvs.replace(tau=0.07)
    with pytest.raises(ValueError, match="'count' with assignment='greedy'"):
        protocols.paper.replace(empty_truths="leave out")
    with pytest.raises(ValueError, match="> 0"):
        protocols.clean.replace(binarization="area fraction", threshold=0)
    assert protocols.clean.replace(binarization="area fraction", threshold=0.25).threshold == 0.25
    assert protocols.avgn.replace(tau=0.07).tau == 0.07
    with pytest.raises(TypeError, match=r"among name, .* got area"):
        protocols.clean.replace(area=0.3)
    with pytest.raises(TypeError, match="tuple of distinct"):
        Protocol("mine", mixture_metrics=["CAP"], single_metrics=("AP",))
    with pytest.raises(ValueError, match="size"):
        protocols.paper.replace(size=0)
    with pytest.raises(ValueError, match="'mixtures', 'single'"):
        SoundLocalization(task="duet")
    with pytest.raises(ValueError, match="'one', 'stacked', 'side-by-side'"):
        SoundLocalization(layout="two")
