"""Strict reading of AudioCLIP's checkpoint: its table of weights, stand-ins, and files of every wrong kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from avsl.commands.audioclip_stand_in import main
from avsl.model.encoders.audioclip import stand_in
from avsl.model.encoders.audioclip.audio import AudioTower
from avsl.model.encoders.audioclip.checkpoint import MARKER, layout, read_checkpoint
from avsl.model.encoders.audioclip.image import ImageTower
from avsl.model.encoders.audioclip.sizes import SMALL
from avsl.model.encoders.audioclip.stand_in import stand_in_weights, write_stand_in
from torch import Tensor, nn


@pytest.fixture
def values() -> dict[str, Tensor]:
    return stand_in_weights(0, SMALL)


def saved(value: object, path: Path) -> str:
    torch.save(value, path)
    return str(path)


def read(source: str, *, allow_stand_in: bool = True) -> object:
    return read_checkpoint("visual_weights", source, allow_stand_in=allow_stand_in)


# The table


def test_all_861_weights() -> None:
    table = layout()
    assert len(table) == 861
    assert sum(value.nbytes for value in table.values()) == 536_988_152
    buffers = [n for n in table if n.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert len(buffers) == 339
    parameters = table.keys() - {*buffers, "audio.window"}
    assert sum(table[name].numel() for name in parameters) == 134_111_910
    audio = {name for name in table if name.startswith("audio.")}
    assert len(audio) == 370
    assert sum(table[name].numel() for name in audio & parameters) == 32_104_771


SHAPES = {
    "visual.conv1.weight": (32, 3, 3, 3),
    "visual.conv3.weight": (64, 32, 3, 3),
    "visual.bn2.running_var": (32,),
    "visual.layer1.0.conv1.weight": (64, 64, 1, 1),
    "visual.layer3.5.conv2.weight": (256, 256, 3, 3),
    "visual.layer4.2.conv3.weight": (2048, 512, 1, 1),
    "visual.layer2.0.downsample.0.weight": (512, 256, 1, 1),
    "visual.layer4.0.downsample.1.num_batches_tracked": (),
    "visual.attnpool.positional_embedding": (50, 2048),
    "visual.attnpool.k_proj.weight": (2048, 2048),
    "visual.attnpool.c_proj.weight": (1024, 2048),
    "positional_embedding": (77, 512),
    "text_projection": (512, 1024),
    "token_embedding.weight": (49_408, 512),
    "ln_final.bias": (512,),
    "transformer.resblocks.11.attn.in_proj_weight": (1536, 512),
    "transformer.resblocks.0.attn.in_proj_bias": (1536,),
    "transformer.resblocks.5.mlp.c_fc.weight": (2048, 512),
    "transformer.resblocks.5.mlp.c_proj.weight": (512, 2048),
    "logit_scale": (),
    "logit_scale_ai": (),
    "logit_scale_at": (),
    "audio.conv1.weight": (64, 3, 7, 7),
    "audio.layer1.0.conv1.weight": (128, 64, 1, 1),
    "audio.layer2.3.conv2.weight": (256, 8, 3, 3),
    "audio.layer4.0.conv3.weight": (2048, 1024, 1, 1),
    "audio.layer4.0.downsample.0.weight": (2048, 1024, 1, 1),
    "audio.att1.conv_depth.weight": (64, 1, 3, 1),
    "audio.att2.conv_depth.weight": (256, 1, 1, 5),
    "audio.att5.conv_depth.weight": (2048, 1, 3, 5),
    "audio.att4.conv_point.weight": (2048, 1024, 1, 1),
    "audio.att5.bn.bias": (2048,),
    "audio.fc.weight": (1024, 2048),
    "audio.fbsp.m": (1025,),
    "audio.fbsp.bias": (0,),
    "audio.window": (1654,),
}


def test_shapes() -> None:
    table = layout()
    assert {name: tuple(table[name].shape) for name in SHAPES} == SHAPES


@pytest.mark.slow
def test_a_file_of_the_published_size(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("audioclip") / "full.pt"
    try:
        write_stand_in(path)
        assert 536_988_152 < path.stat().st_size < 537_500_000
        checkpoint = read_checkpoint("visual_weights", str(path), allow_stand_in=True)
    finally:
        path.unlink(missing_ok=True)
    parts = checkpoint.image, checkpoint.audio, checkpoint.text
    assert sum(map(len, parts)) == 861
    for network, weights in ((ImageTower, checkpoint.image), (AudioTower, checkpoint.audio)):
        with torch.device("meta"):
            made = network()
        made.load_state_dict(weights, assign=True)  # all of them, and no others


# Stand-ins


def test_a_stand_in_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "new" / f"{name}.pt" for name in ("one", "same", "other")]
    for path, seed in zip(paths, ("0", "0", "1"), strict=True):
        assert main([str(path), "--small", "--seed", seed]) == 0
    assert "one.pt holds random weights (12 MB)" in " ".join(capsys.readouterr().out.split())
    one, same, other = (torch.load(path, weights_only=True) for path in paths)
    assert one.keys() == layout(SMALL).keys() | {MARKER}
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["audio.fc.weight"], other["audio.fc.weight"])


def test_a_stand_in_does_not_replace_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "AudioCLIP-Full-Training.pt"
    path.write_bytes(b"the real one")
    with pytest.raises(SystemExit):
        main([str(path), "--small"])
    assert "`file` to be a new file, but there is" in " ".join(capsys.readouterr().err.split())
    assert path.read_bytes() == b"the real one"


def test_the_seed_of_others_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    stand_in_weights(0, SMALL)
    assert torch.equal(torch.rand(2), expected)


def test_a_stand_in_is_written_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: object, file: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(stand_in.torch, "save", killed)
    assert main([str(tmp_path / "own.pt"), "--small"]) == 130
    assert not list(tmp_path.iterdir())


def test_a_stand_in_never_replaces_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.pt"
    path.write_bytes(b"before")
    with pytest.raises(SystemExit):
        main([str(path), "--small"])
    assert "Expected `file` to be a new file" in capsys.readouterr().err
    assert path.read_bytes() == b"before"


def test_a_stand_in_needs_the_suffix_by_which_text_encoders_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["own.bin"])
    assert "Expected `file` to end in .pt, but got 'own.bin'" in capsys.readouterr().err


def test_a_stand_in_has_to_be_asked_for(audioclip: str) -> None:
    message = r"`visual_weights` .* stand-in with random weights\. Add --smoke-test true, which marks all results"
    with pytest.raises(ValueError, match=message):
        read(audioclip, allow_stand_in=False)
    checkpoint = read(audioclip)
    assert checkpoint.sizes == SMALL
    assert MARKER not in checkpoint.text


@pytest.mark.parametrize(
    "marker", [torch.tensor([64]), torch.ones(8), torch.tensor([0] * 8), torch.tensor([2**40] * 8), torch.tensor([])]
)
def test_a_mark_of_another_form(values: dict[str, Tensor], tmp_path: Path, marker: Tensor) -> None:
    with pytest.raises(ValueError, match=r"it is a stand-in of another form\. Make it again"):
        read(saved(values | {MARKER: marker}, tmp_path / "odd.pt"))


def test_without_its_mark_a_small_file_is_not_taken(values: dict[str, Tensor], tmp_path: Path) -> None:
    del values[MARKER]
    with pytest.raises(ValueError, match=r"\d+ weights are missing of 861 .*; \d+ weights have another shape"):
        read(saved(values, tmp_path / "unmarked.pt"))


# Wrong files


def test_weights_in_half_precision(values: dict[str, Tensor], tmp_path: Path) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in values.items()}
    tower = AudioTower(SMALL)
    tower.load_state_dict(read(saved(half, tmp_path / "half.pt")).audio)
    assert {p.dtype for p in tower.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("-", "audio.fc.bias"), "1 weight is missing of 297 (audio.fc.bias)"),
        (("+", "audio.extra"), "1 weight is unknown (audio.extra)"),
        (
            ("=", "audio.fc.weight", (16, 512), (10, 512)),
            "1 weight has another shape (audio.fc.weight (10, 512) in place of (16, 512))",
        ),
        (
            ("int", "audio.fc.weight"),
            "1 weight has another type (audio.fc.weight torch.int64 in place of torch.float32)",
        ),
        (("int", "audio.bn1.num_batches_tracked"), None),
    ],
)
def test_one_wrong_weight(values: dict[str, Tensor], tmp_path: Path, change: tuple, message: str | None) -> None:
    kind, name, *shapes = change
    if kind == "-":
        del values[name]
    elif kind == "+":
        values[name] = torch.zeros(3)
    elif kind == "=":
        assert values[name].shape == shapes[0]
        values[name] = torch.zeros(shapes[1])
    else:
        values[name] = values[name].long()
    source = saved(values, tmp_path / "wrong.pt")
    if message is None:
        read(source)
        return
    with pytest.raises(ValueError, match=re.escape(f"AudioCLIP's checkpoint, but '{source}' is not: {message}") + "$"):
        read(source)


def test_another_model(tmp_path: Path) -> None:
    source = saved(nn.Linear(2, 3).state_dict(), tmp_path / "linear.pt")
    message = (
        "861 weights are missing of 861 (audio.att1.bn.bias, audio.att1.bn.num_batches_tracked, "
        "audio.att1.bn.running_mean, …); 2 weights are unknown (bias, weight)"
    )
    with pytest.raises(ValueError, match=f"`visual_weights` .* but '{source}' is not: {re.escape(message)}$"):
        read(source)


def test_values_that_are_no_weights(values: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it holds a list, not a dictionary of weights"):
        read(saved([1, 2], tmp_path / "list.pt"))
    whole = {"state_dict": values, "epoch": 3}
    with pytest.raises(ValueError, match=r"2 entries of it \('epoch', 'state_dict'\) are no weights"):
        read(saved(whole, tmp_path / "whole.pt"))


def test_a_truncated_file(audioclip: str, tmp_path: Path) -> None:
    path = tmp_path / "half.pt"
    content = Path(audioclip).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"'.*half\.pt' is not: it can't be read as weights and plain values"):
        read(str(path))


def test_a_changed_byte(audioclip: str, tmp_path: Path) -> None:
    path = tmp_path / "changed.pt"
    content = bytearray(Path(audioclip).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"'.*changed\.pt' is not: it is damaged"):
        read(str(path))


def test_a_pickled_model(tmp_path: Path) -> None:
    """Reading it would run code."""
    with pytest.raises(ValueError, match=r"is not: it can't be read as weights and plain values"):
        read(saved(nn.Linear(2, 3), tmp_path / "model.pt"))


def test_no_file(tmp_path: Path) -> None:
    for source in (str(tmp_path / "none.pt"), str(tmp_path)):
        message = rf"`visual_weights` .* no file '{source}'\. AudioCLIP-Full-Training\.pt is at https://.*\. Name "
        message += "it with --visual-weights$"
        with pytest.raises(FileNotFoundError, match=message):
            read(source)
