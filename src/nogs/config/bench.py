"""The configuration of `nogs bench`: methods on several tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from nogs.config.bounds import Checked, Count, Processes
from nogs.config.groups import Machine, Names, Seeds

TaskFile = Annotated[Path | None, Positional, arg(metavar="TASKS")]


@dataclass(frozen=True)
class Bench(Checked):
    """Compare methods on several tasks: one table and one plot."""

    machine: Machine
    tasks: TaskFile = None
    """TOML file with a table for each task, of options of `nogs run`; by default the built-in tasks (docs/bench.md)"""
    methods: Names = ("random", "ram", "gain")
    """methods of `nogs run`, each on every task"""
    seeds: Seeds = (0, 1)
    """seeds of the trainings, each with every method"""
    iterations: Count | None = None
    """most iterations of each training, in place of those of the tasks"""
    engine: str = "local"
    """where searches and trainings are computed, as `nogs run` has it, unless a task says so itself"""
    jobs: Processes = 0
    """trainings at the same time, and workers of ray; 0: one for each core, or one on an accelerator (ray: on each)"""
