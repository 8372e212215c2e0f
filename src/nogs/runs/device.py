"""Devices and their precision, and random generators that a resumed run can make again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Generator

from nogs.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device ``name``. "auto" is the accelerator if there is one, else the CPU.

    Raises UserError for a device that does not exist here.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name} is not a device: choose auto, cpu, cuda or mps") from None
    if device.type != "cpu" and (accelerator is None or accelerator.type != device.type):
        raise UserError(f"device={name} is not available here: choose auto or cpu")
    return device


def design_dtype(device: torch.device) -> torch.dtype:
    """Return the precision of gain maps: bfloat16 on processors that multiply in it, else float32.

    bfloat16 is two to four times faster there. Its rounding error is smaller than the noise of a map, which is
    estimated from tens of completions.
    """
    if device.type == "cpu":  # emulated bfloat16 is slower; older versions of torch have no get_capabilities
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(capabilities.get(key, False) for key in ("avx512_bf16", "amx_bf16", "bf16"))
    else:
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def chance(*key: int, device: torch.device | str = "cpu") -> Generator:
    """Return a generator that is a function of ``key``, so that a resumed run needs no stored generator state.

    ``key``: usually (seed, stream, iteration). Keys of integers up to 2^20 that differ in one by 1 get distinct seeds.
    """
    state = 0
    for part in key:
        state = (state * 1_000_003 + part + 1) % (2**63)
    return Generator(device).manual_seed(state)


@contextmanager
def design_precision(device: torch.device) -> Iterator[torch.dtype]:
    """Compute in `design_dtype` of ``device`` within the context, and yield that dtype."""
    dtype = design_dtype(device)
    with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
        yield dtype
