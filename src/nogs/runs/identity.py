"""What makes a run the run it is: its configuration as JSON, and the differences that --resume refuses."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

MAY_CHANGE = ("machine", "jobs")
"""Fields of a config that say where a run is computed. They do not change its results and may differ at --resume."""


def as_json(config: Any) -> dict[str, Any]:
    """Return a config dataclass as JSON values. Paths, that in a --data SPEC included, become absolute strings."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=os.path.abspath))
    for part in (plain, *(value for value in plain.values() if isinstance(value, dict))):
        kind, _, place = str(part.get("data", "")).partition(":")
        if place and not place.startswith("~"):
            part["data"] = f"{kind}:{os.path.normpath(Path(place).absolute())}"
    return plain


def first_difference(had: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """Return the first argument in which two configurations differ, with both values.

    None if they differ in nothing, or only in the fields of MAY_CHANGE.
    """
    for key in [*wanted, *(k for k in had if k not in wanted)]:
        if key in MAY_CHANGE or had.get(key) == wanted.get(key):
            continue
        if isinstance(had.get(key), dict) and isinstance(wanted.get(key), dict):
            if nested := first_difference(had[key], wanted[key]):
                return nested
            continue
        return f"`{key}` (had {had.get(key)}, now {wanted.get(key)})"
    return None
