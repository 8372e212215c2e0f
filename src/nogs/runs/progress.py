"""Progress bars with the time left, on stderr, for everything that takes over two seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Tick = Callable[[int, str], None]
"""A callback for progress: (steps done so far, a note such as the current loss)."""
_PREFIX: ContextVar[str] = ContextVar("prefix", default="")


def after(before: int, name: str, report: Tick) -> Tick:
    """Return the callback for one part ``name`` of a longer work, after ``before`` steps of earlier parts."""
    return lambda done, note: report(before + done, f"{name}: {note}")


class Numbering:
    """Number the bars of consecutive stages of a pipeline, ``total`` in all: "3 of 6: sequences"."""

    def __init__(self, total: int) -> None:
        self._number, self._total = 0, total

    @contextmanager
    def next(self) -> Iterator[None]:
        """Show the number of the next stage in all bars that are made within the context."""
        self._number += 1
        token = _PREFIX.set(f"{self._number} of {self._total}: ")
        try:
            yield
        finally:
            _PREFIX.reset(token)


def numbered(description: str) -> str:
    """Return the description of a bar, with the number of the current stage if stages are numbered."""
    return f"{_PREFIX.get()}{description}"


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show several bars at once. Add tasks to the yielded object, and show notes in their field ``note``."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True, force_jupyter=False),  # bars in Jupyter need ipywidgets, and warn without it
    ) as bars:
        yield bars


@contextmanager
def ticking(description: str, total: int, tick: Tick | None = None) -> Iterator[Tick]:
    """Yield ``tick`` if the caller shows progress already, else the callback of a new bar of ``total`` steps."""
    if tick is not None:
        yield tick
        return
    with progress_bars() as bars:
        task = bars.add_task(numbered(description), total=total, note="")
        yield lambda done, note: bars.update(task, completed=done, note=note)
