"""The model card of a shared model: what it is, what it was trained on, how to use it."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCardData

from .frozen_towers import PARTS, public_towers

_TAGS = ["audio-visual", "sound-source-localization"]
COMPOSED = "drawn-"  # what the names of folders of composed scenes begin with
_NO_RESULTS = "## Results\n\nNo results were recorded with this model.\n"
_LICENSE = (
    "This card states no license, because only the person who shares the model can choose one. Before you share it, "
    "add a line `license: …` to the header of this file and replace this paragraph. The licenses of the training data, "
    "and of weights that the training started from, may restrict your choice."
)
_USE = """Run these commands in a checkout of sslosses. MODEL is this folder, or the name of this model on the hub.

```sh
pip install '.[examples]'
python examples/localize.py MODEL picture.jpg sound.wav
python examples/evaluate.py MODEL --data-root DIR
```
"""


def model_card(model: Any, title: str, results: str) -> str:
    """Writes the card of a localizer, in Markdown with a YAML header; ``results`` are sections about its metrics."""
    header = ModelCardData(library_name="sslosses", tags=_TAGS).to_yaml()
    facts = "".join(f"| {name} | {text} |\n" for name, text in _facts(model).items())
    parts = (
        f"---\n{header}\n---\n",
        f"# {title}\n",
        "It marks in a video frame where a sound comes from. It was trained with the example of sslosses.\n",
        f"## License\n\n{_LICENSE}\n",
        f"## Use\n\n{_USE}",
        f"## Model and training\n\n| | |\n|---|---|\n{facts}",
        results or _NO_RESULTS,
    )
    return "\n".join(parts)


def _facts(model: Any) -> dict[str, str]:
    c, towers = model.config, public_towers(model)
    data = f"{c.dataset}: {', '.join(c.subsets)}" + (f"; folder `{model.data_name}`" if model.data_name else "")
    seeds = f"{c.seed} (run)"
    if model.data_name.startswith(COMPOSED):
        data += f", {c.train_scenes} composed training scenes and {c.test_scenes} test scenes"
        seeds += f", {c.data_seed} (composed scenes)"
    facts = {
        "method": f"`{c.method}` {' '.join(c.method_options)}".strip(),
        "identification": f"`{c.identification}` by default",
        "encoders": f"`{c.backbone}`, frames of {c.image_size} × {c.image_size} pixels",
    }
    for part in PARTS:
        if part in towers:
            tower = towers[part]
            facts[f"frozen {part} tower"] = (
                f"`{tower['weights']}`, not in these files; SHA-256 of its tensors `{tower['sha256']}`"
            )
    if c.smoke_test:
        facts["smoke test"] = "yes: the model is of a run that only checks that every step works"
    return facts | {
        "data": data,
        "seeds": seeds,
        "training": f"{c.epochs} epochs, batches of {c.batch_size}",
        "classes of the training clips": str(len(model.classes)),
    }
