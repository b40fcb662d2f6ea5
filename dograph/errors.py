"""The one error that a user can mend."""


class UserError(ValueError):
    """A mistake in a recipe, a corpus or a user's mixer.

    The message names the file, the key and the remedy. The command line prints it without a
    traceback and exits with code 2; library users see an ordinary ``ValueError``.
    """


def told_elsewhere(traceback: str) -> str | None:
    """The message of the `UserError` that another process's traceback ends with.

    Loader workers and litdata's hand on errors as the text of their traceback.

    Args:
        traceback: the text, or any other.

    Returns:
        the message, or None if the text is no such traceback.
    """
    _, mark, message = traceback.rpartition(f"\n{__name__}.{UserError.__name__}: ")
    return message.partition("\n")[0].strip() if mark else None
