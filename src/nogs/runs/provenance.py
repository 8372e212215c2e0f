"""Where a run comes from: versions, commit, machine and time, as provenance.json has them."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("nogs", "torch", "torchvision", "timm", "numpy", "scikit-learn", "safetensors")


def environment() -> dict[str, object]:
    """What computes: the code, what it stands on, and the machine."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": _said_by("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD") or None,
        "platform": platform.platform(),
        "hardware": hardware(),
    }


def hardware() -> str:
    """The processor's model and cores, and each accelerator's name."""
    parts = [f"{_processor()} ({os.cpu_count()} cores)"]
    if torch.cuda.is_available():
        parts += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(parts)


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _processor() -> str:
    """Linux and macOS each know the model by a name of their own; elsewhere the architecture has to do."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (models and models[0]) or _said_by("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()


def _said_by(*command: str) -> str:
    """What a program prints; nothing if it fails or is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
