"""One-line errors: `UserError` (exit code 2) and `RunError` (exit code 1).

A message names an argument as ``name=value``, or as `` `name` `` without a value: ``glimpse_px=40 exceeds
image_px=32: choose at most 32``. The command line rewrites both as flags (`nogs.cli.in_flags`).
"""


class UserError(Exception):
    """Invalid input. The message names the file, row or argument, the value and the fix. Exit code 2."""


class RunError(Exception):
    """A run that was ended from outside. The message names the cause and how to continue. Exit code 1."""
