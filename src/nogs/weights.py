"""Trained networks to and from run directories: weights as safetensors, the network's spec in their metadata.

A spec is checked before a network is built from it, and the shapes of that network are compared with those in the
file's header before memory is allocated. A file that does not fit raises an error of one line that names it.
"""

from __future__ import annotations

from typing import TypeVar, overload

import torch
from torch import nn

from nogs.attention.network import HardAttention
from nogs.errors import UserError
from nogs.posterior.lookahead import LookaheadPosterior
from nogs.posterior.masked_cnn import AVPCNN
from nogs.rivals.attention_sampling import AttentionSampling
from nogs.rivals.cnn import WholeImageCNN
from nogs.rivals.multiple_instances import MultipleInstances
from nogs.rivals.patch_selection import PatchSelection
from nogs.runs.directory import RunDirectory
from nogs.runs.files import damaged
from nogs.runs.identity import as_json, from_json
from nogs.specs import (
    AttentionSamplingSpec,
    CNNSpec,
    HaltingSpec,
    HardAttentionSpec,
    MultipleInstancesSpec,
    NetworkSpec,
    PatchSelectionSpec,
    PosteriorSpec,
    StoppingSpec,
)
from nogs.stopping.halting import HaltingUnit
from nogs.stopping.heads import StoppingHeads

MAX_MESSAGE = 200
"""Characters of another error that a message quotes, because a text in a damaged file may be long."""
TYPES = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}
"""Types of the tensors of networks → their names in the header of a safetensors file."""
Spec = TypeVar("Spec", bound=NetworkSpec[nn.Module])


def save_network(run: RunDirectory, name: str, network: nn.Module, spec: NetworkSpec[nn.Module]) -> None:
    """Write the weights of ``network`` and its ``spec`` to ``name``.safetensors."""
    run.save_tensors(name, network.state_dict(), kind=spec.kind, **as_json(spec))


def read_spec(run: RunDirectory, name: str, *, kind: type[Spec]) -> Spec:
    """Return the spec in ``name``.safetensors. Raises UserError if it is of another kind, or invalid."""
    file, metadata = run.path / f"{name}.safetensors", run.load_metadata(name)
    stored = metadata.pop("kind", None)
    if stored != kind.kind:
        raise damaged(file, f"is no network of kind {kind.kind!r}, but {str(stored)[:40]!r}")
    try:
        return from_json(kind, metadata)
    except UserError as error:
        raise damaged(file, f"describes no network: {str(error)[:MAX_MESSAGE]}") from None


@overload
def load_network(
    run: RunDirectory, name: str, *, kind: type[HardAttentionSpec], device: torch.device
) -> tuple[HardAttentionSpec, HardAttention]: ...
@overload
def load_network(
    run: RunDirectory, name: str, *, kind: type[PosteriorSpec], device: torch.device
) -> tuple[PosteriorSpec, LookaheadPosterior | AVPCNN]: ...
@overload
def load_network(
    run: RunDirectory, name: str, *, kind: type[StoppingSpec], device: torch.device
) -> tuple[StoppingSpec, StoppingHeads]: ...
@overload
def load_network(
    run: RunDirectory, name: str, *, kind: type[HaltingSpec], device: torch.device
) -> tuple[HaltingSpec, HaltingUnit]: ...
@overload
def load_network(
    run: RunDirectory, name: str, *, kind: type[CNNSpec], device: torch.device
) -> tuple[CNNSpec, WholeImageCNN]: ...
@overload
def load_network(
    run: RunDirectory, name: str, *, kind: type[AttentionSamplingSpec], device: torch.device
) -> tuple[AttentionSamplingSpec, AttentionSampling]: ...
@overload
def load_network(
    run: RunDirectory, name: str, *, kind: type[PatchSelectionSpec], device: torch.device
) -> tuple[PatchSelectionSpec, PatchSelection]: ...
@overload
def load_network(
    run: RunDirectory, name: str, *, kind: type[MultipleInstancesSpec], device: torch.device
) -> tuple[MultipleInstancesSpec, MultipleInstances]: ...
def load_network(
    run: RunDirectory, name: str, *, kind: type[Spec], device: torch.device
) -> tuple[NetworkSpec[nn.Module], nn.Module]:
    """Return the spec of ``name``.safetensors and its network, in eval mode on ``device``.

    Raises UserError if the file holds another kind of network, or weights that do not fit its spec.
    """
    spec = read_spec(run, name, kind=kind)
    _check_shapes(run, name, spec)
    network = spec.build()
    network.load_state_dict(run.load_tensors(name))
    return spec, network.to(device).eval()


def start_from(run: RunDirectory, network: HardAttention) -> None:
    """Copy the weights of a train run into ``network`` where name and shape agree; the others are left as they are.

    Over another grid, or for other classes, that leaves the last layers of the heads.
    """
    own, device = network.state_dict(), next(network.parameters()).device
    _, other = load_network(run, "model", kind=HardAttentionSpec, device=device)
    fitting = {
        name: value for name, value in other.state_dict().items() if name in own and own[name].shape == value.shape
    }
    network.load_state_dict(own | fitting)


def load_halting(run: RunDirectory, name: str, *, device: torch.device) -> HaltingUnit | None:
    """Return the halting unit ``name`` of a train run; None if the method trains none."""
    return load_network(run, name, kind=HaltingSpec, device=device)[1] if run.has(name) else None


def load_stopping(
    run: RunDirectory, *, trained: RunDirectory, device: torch.device, name: str = "model"
) -> StoppingHeads:
    """Return the heads ``name`` of a fit-stopping run. Raises UserError unless they were fitted to ``trained``."""
    spec, heads = load_network(run, name, kind=StoppingSpec, device=device)
    if spec.network != trained.hash_of("model.safetensors"):
        raise UserError(
            f"stopping={run.path} was fitted on another network than {trained.path}: run `nogs fit-stopping` on it"
        )
    return heads


def _check_shapes(run: RunDirectory, name: str, spec: NetworkSpec[nn.Module]) -> None:
    """Raise UserError unless the file has exactly the tensors of the spec's network, by shape and type.

    Allocates nothing.
    """
    file = run.path / f"{name}.safetensors"
    try:
        with torch.device("meta"):
            built = spec.build().state_dict()
    except UserError as error:
        raise damaged(file, f"describes no network: {str(error)[:MAX_MESSAGE]}") from None
    expected, stored = {key: tuple(tensor.shape) for key, tensor in built.items()}, run.shapes(name)
    for key in sorted(expected.keys() | stored.keys()):
        if expected.get(key) != stored.get(key):
            raise damaged(
                file, f"does not fit its spec: {key} has shape {stored.get(key)}, expected {expected.get(key)}"
            )
    for key, kind in run.types(name).items():
        if kind != TYPES.get(built[key].dtype):
            raise damaged(file, f"does not fit its spec: {key} has type {kind}, expected {TYPES.get(built[key].dtype)}")
