"""Worker processes of this machine: what every one of them needs when it starts and when its parent ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def starting() -> Iterator[None]:
    """Start worker processes within the context: without the user's script, and with Ctrl-C blocked in them."""
    with _no_main_module(), _interrupts_blocked():
        yield


def begin(threads: int) -> None:
    """Set the number of threads of a worker process, and end it when its parent ends, even by a kill.

    A worker that outlived its parent would write to the same files as the resumed run.
    """
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Start worker processes that do not import the user's script again.

    A spawned process imports the file of ``__main__``, and so would start the whole pipeline once more if the script
    has no ``if __name__ == "__main__":``. Workers run functions of this package and do not need the script.
    """
    main = sys.modules["__main__"]
    attributes = vars(main)
    hidden: dict[str, Any] = {name: attributes.pop(name) for name in ("__file__", "__spec__") if name in attributes}
    main.__spec__ = None
    try:
        yield
    finally:
        attributes.update(hidden)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C. Workers started meanwhile inherit the block, so that this process alone handles it.

    A Ctrl-C during the block reaches this process after it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
