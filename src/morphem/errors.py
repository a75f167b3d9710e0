"""The exception tree. A message is one sentence: where, what was found, what was expected, what to do.

Each class carries the exit code that the command line ends with.
"""


class MorphemError(Exception):
    """Anything this program says to its user on purpose."""

    exit_code = 1


class InputError(MorphemError):
    """Wrong input, refused before anything is written."""

    exit_code = 2


class RunError(MorphemError):
    """Something failed while running (disk full, not a number, lost process); the last checkpoint is kept."""

    exit_code = 1


class NoResultError(MorphemError):
    """The run ended without a believable result ("not converged", "no structure found"); results are kept."""

    exit_code = 3


def nearest(name: str, known: list[str]) -> str:
    """The hint for a misspelt name: ` Did you mean "latent_dim"?`, or nothing where no known name is near."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f' Did you mean "{close[0]}"?' if close else ""
