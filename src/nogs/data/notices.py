"""Warnings about images on stderr, which a pipeline prints once although its stages load the same images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


def notice(text: str) -> None:
    """Print a warning on stderr, except within ``without_notices``."""
    if not _SILENT.get():
        print(f"warning: {text}", file=sys.stderr)


@contextmanager
def without_notices() -> Iterator[None]:
    """Print no notices within the context, which a pipeline enters after its first stage has printed them."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)
