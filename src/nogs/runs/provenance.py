"""The provenance of a run, for provenance.json: versions, commit, machine and time."""

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
    """Return the versions of nogs and its main dependencies, the commit, the platform and the hardware."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": _output_of("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD") or None,
        "platform": platform.platform(),
        "hardware": hardware(),
    }


def hardware() -> str:
    """Return the processor's model and number of cores, and the name of each accelerator."""
    parts = [f"{_processor()} ({os.cpu_count()} cores)"]
    if torch.cuda.is_available():
        parts += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(parts)


def now() -> str:
    """Return the time in UTC, in ISO 8601 to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _processor() -> str:
    """Return the model of the processor on Linux and macOS, and its architecture elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (models and models[0]) or _output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()


def _output_of(*command: str) -> str:
    """Return the standard output of a program; empty if it fails or does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
