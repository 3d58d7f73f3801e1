"""The training example: data, encoders, training and evaluation with the losses of ``sslosses``."""

import os
from importlib.util import find_spec

# After an operation, torch's idle threads wait actively for milliseconds. Beside another program, they are taken off
# their cores while they wait, and the next operation stands still until they get them back. With one of two cores busy,
# a step took 15 to 50 times as long (benchmarks/busy.py). So they wait briefly and then sleep. The OpenMP runtime reads
# these variables when torch is loaded, and the commands load this package first.
_WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
if not any(name in os.environ for name in (*_WAITING, "KMP_BLOCKTIME")):
    os.environ.update(_WAITING)

#: The packages of the extra ``examples`` that this package imports.
PACKAGES = (
    "PIL",
    "av",
    "filelock",
    "huggingface_hub",
    "lightning",
    "matplotlib",
    "rich",
    "safetensors",
    "scipy",
    "soundfile",
    "tqdm",
    "transformers",
    "yaml",
)

if _missing := [name for name in PACKAGES if find_spec(name) is None]:
    raise ModuleNotFoundError(
        f"The examples need packages that are not installed: {', '.join(_missing)}. "
        "Run in the checkout: pip install '.[examples]'"
    )
