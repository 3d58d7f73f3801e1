"""AudioCLIP's text tower, as a model of ``transformers`` with renamed weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from .sizes import HEADS, POSITIONS, VOCABULARY, Sizes

END = VOCABULARY - 1  # the token whose output is the text's embedding
TOKENIZER_MARKER = "sslosses_stand_in"  # only stand-ins for the tokenizer have this key
#: Names of ``transformers`` by those of the checkpoint.
OUTSIDE = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
IN_LAYERS = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def text_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the text tower's weights by their names in the checkpoint."""
    width = sizes.text_width
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (POSITIONS, width),
        "text_projection": (width, sizes.embedding),
        "token_embedding.weight": (VOCABULARY, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    layer: dict[str, tuple[int, ...]] = {"attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,)}
    for name, inputs, outputs in (("attn.out_proj", 1, 1), ("mlp.c_fc", 1, 4), ("mlp.c_proj", 4, 1)):
        layer |= {f"{name}.weight": (outputs * width, inputs * width), f"{name}.bias": (outputs * width,)}
    layer |= {f"{name}.{part}": (width,) for name in ("ln_1", "ln_2") for part in ("weight", "bias")}
    for i in range(sizes.text_layers):
        shapes |= {f"transformer.resblocks.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def build_text_tower(sizes: Sizes, values: Mapping[str, Tensor]) -> CLIPTextModelWithProjection:
    """Builds the text tower with the weights of a checkpoint."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=sizes.text_width,
        intermediate_size=4 * sizes.text_width,
        projection_dim=sizes.embedding,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=HEADS,
        max_position_embeddings=POSITIONS,
        hidden_act="quick_gelu",
        bos_token_id=END - 1,
        eos_token_id=END,
        pad_token_id=END,
    )
    model = CLIPTextModelWithProjection(config)
    model.load_state_dict(dict(_renamed(sizes, values)))
    return model


def _renamed(sizes: Sizes, values: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    yield "text_projection.weight", values["text_projection"].T
    for theirs, ours in OUTSIDE.items():
        yield ours, values[theirs]
    for i in range(sizes.text_layers):
        block, layer = f"transformer.resblocks.{i}", f"text_model.encoder.layers.{i}"
        for part in ("weight", "bias"):
            for theirs, ours in IN_LAYERS.items():
                yield f"{layer}.{ours}.{part}", values[f"{block}.{theirs}.{part}"]
            for name, value in zip("qkv", values[f"{block}.attn.in_proj_{part}"].chunk(3), strict=True):
                yield f"{layer}.self_attn.{name}_proj.{part}", value
