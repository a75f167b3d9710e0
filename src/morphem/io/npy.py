"""NumPy's .npy files of plain numbers."""

from pathlib import Path
from tokenize import TokenError

import numpy as np

from morphem.errors import InputError
from morphem.io.reading import reading


def read(path: Path | str, kind: str) -> np.ndarray:
    """The array. Errors: InputError for Python objects, a broken file, or one shorter than its header claims."""
    try:
        with reading(path, kind), np.errstate(over="raise"):
            _check_header(Path(path))
            return np.array(np.lib.format.open_memmap(path, mode="r"))
    except (ValueError, EOFError, FloatingPointError, TokenError) as error:
        raise InputError(f"{path}: holds no whole array of plain numbers; give the path of {kind}") from error


def _check_header(path: Path) -> None:
    """Errors: ValueError for a header longer than its file: NumPy makes room for it before it reads."""
    with path.open("rb") as file:
        start = file.read(12).ljust(12, b"\0")
    if int.from_bytes(start[8 : 10 if start[6] == 1 else 12], "little") > path.stat().st_size:
        raise ValueError("the header claims more bytes than the file holds")
