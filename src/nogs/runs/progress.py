"""Progress bars with the time left, on stderr, for everything that takes over two seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Tick = Callable[[int, str], None]
"""(done so far, what is worth reading)."""


def after(before: int, name: str, report: Tick) -> Tick:
    """Progress of one part of a work, ``name``, of which so much was done ``before`` it."""
    return lambda done, note: report(before + done, f"{name}: {note}")


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Several bars at once: add tasks to it, and fill the field ``note`` with what is worth reading."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    ) as bars:
        yield bars


@contextmanager
def ticking(description: str, total: int, tick: Tick | None = None) -> Iterator[Tick]:
    """``tick`` if a caller shows progress already, else that of a bar of our own."""
    if tick is not None:
        yield tick
        return
    with progress_bars() as bars:
        task = bars.add_task(description, total=total, note="")
        yield lambda done, note: bars.update(task, completed=done, note=note)
