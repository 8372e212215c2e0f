"""The table of methods: where the sequences come from x what moves the policy on the other images x who looks.

The rivals of *Near-Optimal Glimpse Sequences* (Harvey, Teng, Wood, section 5) and three controls without a policy:
random cells, the centre cell, and one designed path for all images. Methods differ only by their rows.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from nogs.errors import UserError

Policy = Literal["reinforce", "wake-sleep", "none"]
Looks = Literal["policy", "random", "centre", "path"]


class Method(NamedTuple):
    """A row of the table.

    ``sequences``: found by a search, recorded from a trained ``TEACHER``, or given by the user; ``path`` is one
    sequence for all images, from a search with ``pooling=1``.
    ``policy``: the loss of the policy on images that run freely.
    ``looks``: how cells are chosen, in training and in test. Without a policy: uniformly at random, always the
    cell nearest to the image's centre, or along the designed path.
    """

    title: str
    sequences: Literal["none", "search", "path", "record", "given"]
    policy: Policy
    looks: Looks


METHODS = {
    "ram": Method("RAM", sequences="none", policy="reinforce", looks="policy"),
    "ps-nogs": Method("PS-NOGS", sequences="search", policy="reinforce", looks="policy"),
    "ws-ram": Method("WS-RAM", sequences="none", policy="wake-sleep", looks="policy"),
    "ps-ram": Method("PS-RAM", sequences="record", policy="reinforce", looks="policy"),
    "ps-hgs": Method("PS-HGS", sequences="given", policy="reinforce", looks="policy"),
    "random": Method("Random cells", sequences="none", policy="none", looks="random"),
    "centre": Method("Centre cell", sequences="none", policy="none", looks="centre"),
    "path": Method("One designed path", sequences="path", policy="none", looks="path"),
}
TEACHER = "ram"
"""The method whose trained networks are recorded for others to learn from."""
STOPPING = "ps-nogs"
"""The method whose trained networks learn when to stop."""


def method(name: str, *, argument: str = "methods") -> Method:
    """The method of that name. Raises UserError for one that does not exist, in the name of ``argument``."""
    if name not in METHODS:
        raise UserError(f"{argument}={name} does not exist: choose among {', '.join(METHODS)}")
    return METHODS[name]
