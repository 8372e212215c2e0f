"""Share a model: a folder of safetensors, JSON and a model card, and the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nogs.errors import RunError
from nogs.prediction.card import model_card
from nogs.prediction.model import Model
from nogs.runs.files import write_whole

CARD = "README.md"
MAX_REASON = 200
"""Number of characters of a hub error that a message quotes."""


@runtime_checkable
class Api(Protocol):
    """The methods of `huggingface_hub.HfApi` that are used."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any: ...


def save_pretrained(model: Model, folder: str | Path, *, name: str, evaluation: str | Path | None = None) -> None:
    """Write the model and its card to ``folder``. ``name``: what the card calls it, as an argument of `load_model`."""
    card = model_card(model, name, evaluation=None if evaluation is None else Path(evaluation))
    model.save(folder)
    write_whole(Path(folder) / CARD, card.encode())


def push_to_hub(
    model: Model,
    name: str,
    *,
    private: bool = False,
    evaluation: str | Path | None = None,
    token: str | None = None,
    api: Api | None = None,
) -> str:
    """Upload the model as ``name`` (owner/name), which is created if it does not exist; return its address.

    ``api``: by default `huggingface_hub.HfApi` with ``token``, or with the token of ``hf auth login``. Raises RunError
    if the hub refuses.
    """
    if api is None:
        from huggingface_hub import HfApi  # takes half a second to import

        api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, name=name, evaluation=evaluation)
        try:
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name, folder_path=Path(folder), commit_message=f"Upload a {model.spec.method} model"
            )
        except Exception as error:  # huggingface_hub, its HTTP client and the system raise many kinds
            reason = str(error).partition("\n")[0][:MAX_REASON]
            raise RunError(f"name={name} cannot be uploaded to the Hugging Face hub: {reason}") from None
    return f"https://huggingface.co/{name}"
