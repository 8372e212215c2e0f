"""Load a model: from a run directory of train, from a folder of `Model.save`, or from the Hugging Face hub.

A folder needs ``model.safetensors`` alone, whose metadata holds the spec. ``halting.safetensors`` and
``stopping.safetensors`` are used if they are there. If the folder has the marker COMPLETE, files are compared with its
checksums.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from nogs.errors import UserError
from nogs.prediction.model import Halting, Heads, Model
from nogs.runs.device import choose_device
from nogs.runs.directory import RunDirectory, read_run
from nogs.runs.marker import entries
from nogs.specs import HaltingSpec, HardAttentionSpec, StoppingSpec
from nogs.weights import load_network, load_stopping, read_spec

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = ("*.safetensors", "*.json", "COMPLETE")
"""The files of a hub repository that are downloaded."""
MAX_REASON = 200
"""Number of characters of a hub error that a message quotes."""


def load_model(
    path: str | Path, *, stopping: str | Path | None = None, device: str = "cpu", revision: str | None = None
) -> Model:
    """Load a trained network with its preprocessing.

    Parameters
    ----------
    path
        A finished run directory of train, a folder with ``model.safetensors``, or a name on the Hugging Face hub
        (owner/name), which is downloaded once.
    stopping
        A run directory of fit-stopping, or a folder with its ``model.safetensors``, whose heads stop images early if
        ``threshold`` is given to `Model.predict`.
    device
        Where to compute: cpu, cuda, mps, or auto.
    revision
        Branch, tag or commit on the hub.

    Raises
    ------
    UserError
        If there is no model, or if it is damaged.
    """
    where = choose_device(device)
    folder = _model_folder(_local(path, revision=revision))
    spec, network = load_network(folder, "model", kind=HardAttentionSpec, device=where)
    halting = (
        Halting(*load_network(folder, "halting", kind=HaltingSpec, device=where)) if folder.has("halting") else None
    )
    heads = None
    if stopping is not None:
        heads = _heads(_stopping_folder(Path(stopping)), "model", folder, device=where)
    elif folder.has("stopping"):
        heads = _heads(folder, "stopping", folder, device=where)
    for name, value, own in (
        ("halting", halting and halting.spec.hidden, spec.hidden),
        ("stopping", heads and heads.spec.glimpses, spec.glimpses),
    ):
        if value not in (None, own):
            raise UserError(f"model={path}: its {name}.safetensors is of another network ({value} in place of {own})")
    return Model(spec, network, halting=halting, stopping=heads, run=folder if _is_run(folder) else None)


def _local(path: str | Path, *, revision: str | None) -> Path:
    """Return the folder of a model, which is downloaded if ``path`` is a name on the hub."""
    place = Path(path).expanduser()
    if place.exists():
        return place
    if not _HUB_NAME.fullmatch(str(path)):
        raise UserError(f"model={path} does not exist: give a run directory of train, or owner/name on the hub")
    from huggingface_hub import snapshot_download  # takes half a second to import

    try:
        return Path(snapshot_download(str(path), revision=revision, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # huggingface_hub, its HTTP client and the system raise many kinds
        reason = str(error).partition("\n")[0][:MAX_REASON]
        raise UserError(
            f"model={path} is no folder here, and cannot be downloaded from the Hugging Face hub ({reason}): check the "
            "name and the connection, or give a folder"
        ) from None


def _model_folder(path: Path) -> RunDirectory:
    """Return a folder that holds a model. Raises UserError unless it does, or if it is an unfinished run."""
    folder = RunDirectory(path)
    if _is_run(folder):
        return read_run(path, "train")
    if not folder.has("model"):
        raise UserError(
            f"model={path} holds no model: give a run directory of train, or a folder with model.safetensors"
        )
    return folder


def _stopping_folder(path: Path) -> RunDirectory:
    folder = RunDirectory(path)
    return read_run(path, "fit-stopping") if _is_run(folder) or not folder.has("model") else folder


def _is_run(folder: RunDirectory) -> bool:
    """Return whether a folder has the config.json of a stage; on the hub config.json is another file."""
    name = "config.json"
    described = name in entries(folder.path) if folder.complete else (folder.path / name).exists()
    return described and bool(folder.stage)


def _heads(folder: RunDirectory, name: str, model: RunDirectory, *, device: torch.device) -> Heads:
    """Return the heads ``name`` of a folder. Raises UserError unless they were fitted to the network of ``model``."""
    heads = load_stopping(folder, trained=model, device=device, name=name)
    return Heads(read_spec(folder, name, kind=StoppingSpec), heads)
