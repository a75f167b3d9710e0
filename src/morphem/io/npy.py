"""NumPy's .npy files of plain numbers."""

from pathlib import Path

import numpy as np

from morphem.errors import InputError
from morphem.io.reading import reading


def read(path: Path | str, kind: str) -> np.ndarray:
    """The array. Errors: InputError for Python objects, a broken file, or one shorter than its header claims."""
    try:
        with reading(path, kind):
            return np.array(np.lib.format.open_memmap(path, mode="r"))
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: holds no whole array of plain numbers; give the path of {kind}") from error
