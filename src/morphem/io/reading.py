"""What a file that cannot be opened is answered with."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from morphem.errors import InputError


@contextlib.contextmanager
def reading(path: Path | str, kind: str) -> Iterator[None]:
    """Turn the system's refusals (missing, a folder, no permission) into an InputError of one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give the path of {kind}") from error
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error}); give the path of {kind}") from error
