"""The table of methods: where the sequences come from x which loss moves the policy on the other images."""

from __future__ import annotations

from typing import Literal, NamedTuple

from nogs.errors import UserError


class Method(NamedTuple):
    """A row of the table."""

    title: str
    sequences: Literal["none", "nogs"]
    policy: Literal["reinforce"]


METHODS = {
    "ram": Method("RAM", sequences="none", policy="reinforce"),
    "ps-nogs": Method("PS-NOGS", sequences="nogs", policy="reinforce"),
}


def method(name: str) -> Method:
    """The method of that name. Raises UserError for one that does not exist."""
    if name not in METHODS:
        raise UserError(f"--methods {name} does not exist: choose among {', '.join(METHODS)}")
    return METHODS[name]
