"""A simulated accelerator: tensors that compute on the CPU and report another device.

Most machines that run these tests have no accelerator, so that errors in code for one would be found by users. Tensors
of `Elsewhere` report the device "meta", which torch never initialises. Operations that mix them with tensors of the CPU
fail as on a real accelerator, except those that torch allows: numbers, indices on the CPU, and copies.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
MIXING = {"_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_"}


class Elsewhere(Tensor):
    """A tensor of the accelerator. ``here``: its values, as a tensor of the CPU."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __new__(cls, here: Tensor) -> Elsewhere:
        return torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), dtype=here.dtype, device=DEVICE, requires_grad=here.requires_grad
        )

    def __init__(self, here: Tensor) -> None:
        self.here = here

    def __repr__(self) -> str:
        return f"Elsewhere({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


def dispatched(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the result of ``func`` on the device of its arguments, or on the device that they name."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    elsewhere = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    if elsewhere and func.overloadpacket.__name__ not in MIXING:
        for tensor in tensors:
            if tensor.dim() and not isinstance(tensor, Elsewhere):
                raise RuntimeError(f"{func}: a tensor of {list(tensor.shape)} is here, another on the accelerator")
    if (device := kwargs.get("device")) is not None:
        elsewhere, kwargs = torch.device(device).type == DEVICE.type, {**kwargs, "device": torch.device("cpu")}
    if not elsewhere:
        args, kwargs = tree_map_only(Elsewhere, lambda tensor: tensor.here, (args, kwargs))
        return func(*args, **kwargs)
    here = tree_map_only(Elsewhere, lambda tensor: tensor.here, (args, kwargs))
    given = func(*here[0], **here[1])
    if func._schema.is_mutable and isinstance(args[0], Elsewhere):
        return args[0]
    return tree_map_only(Tensor, Elsewhere, given)


class Dispatching(TorchDispatchMode):
    """Dispatches operations that create tensors on the accelerator or copy them there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


class Making(TorchFunctionMode):
    """Handles the device of `torch.tensor`, which does not pass through the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.pop("device", None) if func is torch.tensor else None
        given = func(*args, **kwargs)
        return given if device is None else given.to(device)


class Torch:
    """The module torch, with this accelerator as the current one."""

    accelerator = SimpleNamespace(current_accelerator=lambda check_available: DEVICE)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def accelerator(patch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Make ``--device auto`` choose the accelerator within the context. Its generators draw on the CPU."""
    patch.setattr("nogs.runs.device.torch", Torch())  # for nogs alone: torch's own optimisers ask for streams there
    patch.setattr("nogs.runs.device.Generator", lambda device: Generator())
    patch.setattr(torch, "inference_mode", torch.no_grad)  # which has no views of tensors like ours
    with warnings.catch_warnings(), Making(), Dispatching():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")  # to others, but not to ours
        yield DEVICE
