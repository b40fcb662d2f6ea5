"""The one error that a user can mend."""


class UserError(ValueError):
    """A mistake in a recipe, a corpus or a user's mixer.

    The message names the file, the key and the remedy. The command line prints it without a
    traceback and exits with code 2; library users see an ordinary ``ValueError``.
    """
