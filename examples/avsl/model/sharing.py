"""``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of the localizer, with its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin

from .model_card import model_card
from .shared_folder import CARD_FILE, find_folder, read_folder, write_folder


class Shareable(ModelHubMixin):
    """Makes a localizer one that can be shared, as a folder or on the Hugging Face hub.

    ``save_pretrained(folder)`` writes weights, configuration and a model card, ``push_to_hub(name)`` uploads them. A
    card that is in the folder already is kept. With ``model_card_kwargs={"title": …, "results": …}``, the card has
    another title, and a section of results in Markdown.
    """

    #: The name of the folder that the model was trained on; empty if unknown.
    data_name = ""
    _card = ""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> Any:
        """Opens a model that ``save_pretrained`` wrote, from a folder or the Hugging Face hub.

        It is on the CPU, in eval mode. Nothing in the folder is unpickled, whatever it holds. A frozen tower that the
        model names in place of its weights is loaded from its package or from the hub. The options are those of
        ``snapshot_download``.

        Raises:
            FileNotFoundError: if there is no such folder, or a file in it is missing.
            ModuleNotFoundError: if the package of a frozen tower is missing.
            OSError: if the model or a frozen tower can't be downloaded.
            ValueError: if a file is damaged, or not of a model of this example; the message names the file.
        """
        folder = find_folder(
            pretrained_model_name_or_path,
            force_download=force_download,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        model = read_folder(cls, folder)
        card = folder / CARD_FILE
        if card.is_file():
            model._card = card.read_text(encoding="utf-8", errors="replace")
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        write_folder(self, save_directory)

    def generate_model_card(self, title: str = "", results: str = "") -> ModelCard:
        """Returns the card that the model was opened with, or else writes one.

        Args:
            title: the heading of the card.
            results: sections in Markdown about the metrics of the model.
        """
        return ModelCard(self._card or model_card(self, title or "A sound source localizer", results))
