"""The one error that a user is meant to read."""


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the thing, what was found, and what to do.
    Commands print it without a traceback and exit with status 2.
    """
