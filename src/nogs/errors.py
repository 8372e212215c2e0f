"""The one exception that is the user's to mend: it names the file, row or flag, the value and the fix."""


class UserError(Exception):
    """A mistake in what the user gave. The command line prints it as one line and exits with code 2."""
