"""Where to compute, and chance that can be replayed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Generator

from nogs.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device for ``--device``: auto takes the accelerator if there is one, else the CPU."""
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
    """The precision to look ahead in: bfloat16 where the processor multiplies in it, which is two to four times faster.

    Its three digits are less than a map's own noise, which is that of some tens of completions.
    """
    if device.type == "cpu":  # emulated, it is slower; an older torch does not tell
        told: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(told.get(key, False) for key in ("avx512_bf16", "amx_bf16", "bf16"))
    else:
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def chance(*key: int, device: torch.device | str = "cpu") -> Generator:
    """A generator that is a function of ``key``, so that no generator state has to be kept for a resume.

    Integers of up to 2^20 are mixed without collisions of neighbours: (seed, stream, iteration).
    """
    state = 0
    for part in key:
        state = (state * 1_000_003 + part + 1) % (2**63)
    return Generator(device).manual_seed(state)


@contextmanager
def design_precision(device: torch.device) -> Iterator[torch.dtype]:
    """Looking ahead in the precision that pays on this device."""
    dtype = design_dtype(device)
    with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
        yield dtype
