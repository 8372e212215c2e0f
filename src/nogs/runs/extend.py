"""Extend a run: replace its configuration by one that adds to it, so that the stage continues where it ended.

More items of a list, a switch turned on, more iterations or more patience add to a configuration. Iterations can grow
from a multiple of ``validate_every`` only, because a longer run validates at no other iteration. The extended run
equals one that had the new configuration from the start.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nogs.runs.directory import RunDirectory
from nogs.runs.identity import MAY_CHANGE, as_json
from nogs.runs.lock import lock
from nogs.runs.marker import MARKER
from nogs.runs.paths import movable

LONGER: Mapping[str, tuple[str, ...]] = {"optimisation.iterations": (), "optimisation.patience": ()}
"""The fields that may grow in the configuration of one training."""

PATIENT: Mapping[str, tuple[str, ...]] = {"optimisation.patience": ()}
"""The fields that may grow in a training whose steps depend on the share of its iterations that is over."""


def extend_run(path: Path, stage: str, config: Any, *, outdated: Mapping[str, tuple[str, ...]]) -> None:
    """Replace the configuration of the run at ``path`` by ``config``, if that only adds to it.

    ``outdated``: the fields that may grow, with dots within groups, and the directories within the run that are
    removed if a field does, because they depend on it. Nothing happens if another field differs; ``open_run`` then
    raises. Raises UserError if a finished run is damaged. A kill leaves the old configuration or the new.
    """
    run = RunDirectory(path)
    if not run.exists or run.stage != stage:
        return
    had, wanted = _flat(as_json(run.config_as(type(config)))), _flat(as_json(config))
    changed = [key for key in wanted if had[key] != wanted[key] and key.partition(".")[0] not in MAY_CHANGE]
    if not changed or not all(key in outdated and _adds(key, had, wanted) for key in changed):
        return
    lock(path)
    if run.complete:
        run.check()
    (path / MARKER).unlink(missing_ok=True)
    for name in dict.fromkeys(name for key in changed for name in outdated[key]):
        shutil.rmtree(path / name, ignore_errors=True)
    run.save_json("config.json", movable({"stage": stage, **as_json(config)}, path.absolute()))


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the fields of a configuration and its groups, as in "optimisation.iterations"."""
    fields: dict[str, Any] = {}
    for key, value in content.items():
        fields |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return fields


def _adds(key: str, had: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Return whether the value of a field adds to the one that it had. Patience of 0 is without end."""
    before, after = had[key], wanted[key]
    group, _, name = key.rpartition(".")
    if isinstance(before, list):
        return set(before) <= set(after)
    if name == "iterations":
        return after > before and before % had[f"{group}.validate_every" if group else "validate_every"] == 0
    if name == "patience":
        return before != 0 and (after == 0 or after > before)
    return bool(after > before)
