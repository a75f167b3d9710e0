"""Files opened: what one that cannot be is answered with, and what tells one from another."""

import contextlib
import hashlib
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


def sha256(path: Path | str, kind: str) -> str:
    """Of a file's bytes. Errors: InputError where it cannot be read."""
    with reading(path, kind), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
