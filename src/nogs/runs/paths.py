"""Paths in config.json: relative between the runs of one pipeline, so that it can be moved as a whole.

A path is written relative to its run directory ("../posterior") if a run directory encloses both. All other paths are
absolute, that of the data included.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def movable(content: dict[str, Any], home: Path) -> dict[str, Any]:
    """Return ``content`` with paths relative to ``home`` where a run directory encloses both.

    ``home`` is the absolute path of the run directory that ``content`` describes.
    """
    enclosing = [place for place in home.parents if (place / "config.json").exists()]

    def relative(value: str) -> str:
        together = any(Path(value).is_relative_to(place) for place in enclosing)
        return os.path.relpath(value, home) if together and not Path(value).is_relative_to(home) else value

    return _map_strings(content, relative)


def absolute(content: dict[str, Any], home: Path) -> dict[str, Any]:
    """Return ``content`` with paths that start with "../" made absolute: the inverse of ``movable``."""

    def resolved(value: str) -> str:
        return os.path.normpath(home / value) if value.startswith("../") else value

    return _map_strings(content, resolved)


def _map_strings(content: Any, change: Callable[[str], str]) -> Any:
    """Apply ``change`` to every string in JSON values, keys excepted."""
    if isinstance(content, dict):
        return {key: _map_strings(value, change) for key, value in content.items()}
    if isinstance(content, list):
        return [_map_strings(value, change) for value in content]
    return change(content) if isinstance(content, str) else content
