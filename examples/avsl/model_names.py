"""Names of pretrained models: folders here, or names on the Hugging Face hub. Imports no torch."""

from __future__ import annotations

from pathlib import Path


def is_path(source: str) -> bool:
    """Whether ``source`` can only be a path: the hub has no such names."""
    return source.startswith(("/", ".", "~")) or source.count("/") > 1 or "\\" in source


def check_name(argument: str, source: str) -> None:
    """Checks that ``source`` exists, unless it can be a name on the hub.

    Raises:
        FileNotFoundError: if there is no such file or folder.
    """
    if is_path(source) and not Path(source).exists():
        raise FileNotFoundError(
            f"Expected `{argument}` to be a folder written by save_pretrained, or a name on the Hugging Face hub, "
            f"but there is no folder {source!r}"
        )


def advice(argument: str, source: str) -> str:
    """Says what to do if a model could not be loaded from the hub; nothing for a model that is here."""
    if Path(source).exists():
        return ""
    other = "use --text-encoder minilm, which needs no download, or " if argument == "text_encoder" else ""
    return (
        f". There is no folder {source!r} here, so it was looked for on the Hugging Face hub. Without a connection, "
        f"{other}name a local folder. For a model that was downloaded before, set the environment variable "
        "HF_HUB_OFFLINE=1"
    )
