"""The one exception for what a user can mend."""

import re

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def shown(text: str) -> str:
    """A text as a terminal may be shown it: control characters, which could move its cursor or
    rename its window, as escapes."""
    return CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


class UserError(Exception):
    """A mistake in the input, the configuration or the environment.

    Its message is printed as it is, on one line and without a traceback, and the command ends
    with exit status 2. It says what was wrong, where (file, line, field, query id) and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shown(message.replace("\n", "\\n")))


def of_the_system(error: OSError) -> str:
    """What the system refused, and where, on one line."""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}"


def in_words(error: BaseException) -> str:
    """An unexpected error on one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def crashed(error: BaseException, command: str) -> str:
    """What to say of an error that is no mistake of the user's: what ran, in which stage (the notes
    that the store has put on the error), and where to report it."""
    import zelo

    where = "".join(f" in {note}" for note in getattr(error, "__notes__", ()))
    return shown(
        f"bug: `{command}` (zelo {zelo.__version__}) crashed{where}: {in_words(error)}; report it "
        f"as an issue of zelo's repository, with the lines above and the run's manifest.json"
    )
