"""The errors that are told in one line: the user's to mend, and what went wrong through nobody's mistake."""


class UserError(Exception):
    """A mistake in what the user gave: it names the file, row or flag, the value and the fix. Exit code 2."""


class RunError(Exception):
    """A run that something outside of it ended; it says how to go on. Exit code 1."""
