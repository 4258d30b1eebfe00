"""The one exception for what a user can mend."""


class UserError(Exception):
    """A mistake in the input, the configuration or the environment.

    Its message is printed as it is, on one line and without a traceback, and the command ends
    with exit status 2. It says what was wrong, where (file, line, field, query id) and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.replace("\r", "\\r").replace("\n", "\\n"))


def of_the_system(error: OSError) -> str:
    """What the system refused, and where, on one line."""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}"


def in_words(error: BaseException) -> str:
    """An unexpected error on one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
