"""The reference example: data, encoders, training and evaluation around the losses of ``sslosses``."""

from importlib.util import find_spec

#: What this package imports of the extra ``examples``.
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
