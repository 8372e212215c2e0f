"""Check, before any image is decoded, that all fit in memory or on the disk of the cache."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from nogs.errors import UserError

CGROUP = Path("/sys/fs/cgroup/memory.max")
"""The memory limit of a container in bytes, or "max" (Linux, cgroup v2)."""
GB = 10**9


def check_memory(count: int, *, channels: int, image_px: int, disk: Path | None = None) -> None:
    """Raise UserError if ``count`` square images of ``image_px`` pixels a side fit neither in memory nor on the disk.

    ``disk``: a directory that the images are mapped from, which may not exist yet. None: they are held in memory.
    """
    needed, limit = count * channels * image_px**2, memory_bytes()
    if disk is not None:
        limit = max(limit, shutil.disk_usage(next(place for place in (disk, *disk.parents) if place.exists())).free)
    if needed > limit:
        raise UserError(
            f"image_size={image_px}: {count} images of {channels} channels take {needed / GB:.1f} GB, and there are "
            f"{limit / GB:.1f} GB; choose at most {math.isqrt(limit // (count * channels))}"
        )


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container that this process runs in."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP.read_text().strip() if CGROUP.exists() else "max"
    return min(memory, int(limit)) if limit.isdigit() else memory
