"""The table of methods: source of glimpse sequences x policy objective x choice of cells.

The rivals of *Near-Optimal Glimpse Sequences* (Harvey, Teng, Wood, section 5), Adaptive Computation Time trained with
the network (Graves 2016), gain maps learned from realised gains, from nothing or from designed sequences, two policies
from mutual information (DIME and GDFS), and three controls without a policy: random cells, the centre cell, and one
designed path for all images. Methods differ only by their rows. A new method is a row here; a new way to choose cells
or a new objective is a function in a file of its own and an entry in ``LOOKS`` or ``OBJECTIVES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from torch import Generator

from nogs.attention.act import act
from nogs.attention.choosers import Chooser, along, anywhere, at, centre_cell, greedy
from nogs.attention.dime import dime
from nogs.attention.gain import learned_gain
from nogs.attention.gain_nogs import gain_nogs
from nogs.attention.gdfs import gdfs
from nogs.attention.train_step import Objective, Training, label_only, reinforce
from nogs.attention.wake_sleep import wake_sleep
from nogs.config.groups import Schedule
from nogs.errors import UserError
from nogs.glimpses.grid import Grid


class Method(NamedTuple):
    """A row of the table.

    ``title``: the name in tables and figures.
    ``sequences``: found by a search, recorded from a trained ``REFERENCE``, or given by the user; ``path`` is one
    sequence for all images, from a search with ``pooling=1``.
    ``policy``: the objective of the policy on images without given cells, a key of ``OBJECTIVES``.
    ``looks``: how cells are chosen, in training and in test: ``policy``, or a key of ``LOOKS``.
    """

    title: str
    sequences: Literal["none", "search", "path", "record", "given"]
    policy: str
    looks: str


METHODS = {
    "ram": Method("RAM", sequences="none", policy="reinforce", looks="policy"),
    "ps-nogs": Method("PS-NOGS", sequences="search", policy="reinforce", looks="policy"),
    "ws-ram": Method("WS-RAM", sequences="none", policy="wake-sleep", looks="policy"),
    "ps-ram": Method("PS-RAM", sequences="record", policy="reinforce", looks="policy"),
    "ps-hgs": Method("PS-HGS", sequences="given", policy="reinforce", looks="policy"),
    "act": Method("ACT", sequences="search", policy="act", looks="policy"),
    "gain": Method("Learned gain", sequences="none", policy="gain", looks="policy"),
    "gain-nogs": Method("Learned gain from NOGS", sequences="search", policy="gain-nogs", looks="policy"),
    "dime": Method("DIME", sequences="none", policy="dime", looks="policy"),
    "gdfs": Method("GDFS", sequences="none", policy="gdfs", looks="policy"),
    "random": Method("Random cells", sequences="none", policy="none", looks="random"),
    "centre": Method("Centre cell", sequences="none", policy="none", looks="centre"),
    "path": Method("One designed path", sequences="path", policy="none", looks="path"),
}
REFERENCE = "ram"
"""The method that sets the target loss, is compared with all others, and whose networks are recorded for ps-ram."""
CONTROL = "path"
"""The method that shows what a policy adds to one designed path."""
STOPPING = "ps-nogs"
"""The method whose trained networks get stopping heads."""
JOINT = "act"
"""The method whose networks are trained to stop, to compare with these heads."""

OBJECTIVES: dict[str, Callable[[Training], Objective]] = {
    "reinforce": reinforce,
    "wake-sleep": wake_sleep,
    "act": act,
    "gain": learned_gain,
    "gain-nogs": gain_nogs,
    "dime": dime,
    "gdfs": gdfs,
    "none": label_only,
}


GAIN_MAPS = frozenset({"gain", "gain-nogs", "dime"})
"""Objectives that make the location head a gain map, by which a network can also stop."""
ANNEALED = frozenset({"gain-nogs", "dime", "gdfs"})
"""Objectives that depend on the share of the iterations that is over."""


def scheduled(name: str, schedule: Schedule) -> bool:
    """Return whether a step of the method's training depends on the number of all iterations."""
    return schedule != "constant" or METHODS[name].policy in ANNEALED


def _random(grid: Grid, generator: Generator, path: Sequence[int] | None) -> Chooser:
    return anywhere(len(grid), generator)


def _centre(grid: Grid, generator: Generator, path: Sequence[int] | None) -> Chooser:
    return at(centre_cell(grid))


def _path(grid: Grid, generator: Generator, path: Sequence[int] | None) -> Chooser:
    if path is None:
        raise ValueError("path=None: this method looks along one path; give its T cells")
    return along(path)


LOOKS: dict[str, Callable[[Grid, Generator, Sequence[int] | None], Chooser]] = {
    "random": _random,
    "centre": _centre,
    "path": _path,
}


def chooser(
    method: Method,
    grid: Grid,
    *,
    generator: Generator,
    path: Sequence[int] | None = None,
    policy: Chooser = greedy,
) -> Chooser:
    """Return how ``method`` chooses cells, in training and in test.

    ``path``: the T cells of a method that looks along one path, None for every other. ``policy`` turns location
    logits into cells; methods without a policy ignore it.
    """
    return policy if method.looks == "policy" else LOOKS[method.looks](grid, generator, path)


def method(name: str, *, argument: str = "methods") -> Method:
    """The method of that name. Raises UserError for one that does not exist, in the name of ``argument``."""
    if name not in METHODS:
        raise UserError(f"{argument}={name} does not exist: choose among {', '.join(METHODS)}")
    return METHODS[name]
