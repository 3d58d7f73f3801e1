"""The training example: data, encoders, training and evaluation with the losses of ``sslosses``."""

from importlib.util import find_spec

#: The packages of the extra ``examples`` that this package imports.
PACKAGES = (
    "PIL",
    "av",
    "filelock",
    "lightning",
    "matplotlib",
    "rich",
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
