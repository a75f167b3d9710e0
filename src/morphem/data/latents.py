"""Latent coordinates from files: this program's tables, NumPy's, cryoDRGN's.

Axes: n images, q latent.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from morphem.errors import InputError
from morphem.io import npy, pickles
from morphem.io.reading import reading


def read(path: Path, count: int) -> np.ndarray:
    """z of `count` images, float32 (n, q), from a .npy, a z.pkl (its first array) or a .parquet (columns z_0, …).

    Errors: InputError for another number of rows, or numbers that are not finite.
    """
    z_nq = _READERS[path.suffix](path) if path.suffix in _READERS else None
    if z_nq is None:
        raise InputError(f'{path}: ends in "{path.suffix}", expected .npy, .pkl or .parquet; give such latents')
    if not isinstance(z_nq, np.ndarray) or z_nq.ndim != 2 or len(z_nq) != count or not z_nq.shape[1]:
        shape = getattr(z_nq, "shape", "no array")
        raise InputError(f"{path}: {shape} found, expected {count} rows of latent coordinates; give this table's own")
    if z_nq.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds {z_nq.dtype}, expected real numbers; make the latents again")
    with np.errstate(over="ignore"):
        z_nq = z_nq.astype(np.float32)
    if not np.isfinite(z_nq).all():
        raise InputError(f"{path}: holds a number that is not finite, or too large; make the latents again")
    return z_nq


def _parquet(path: Path) -> np.ndarray:
    with reading(path, "a table of latents"):
        table = pd.read_parquet(path)
    names = sorted((name for name in map(str, table) if re.fullmatch(r"z_\d+", name)), key=lambda name: int(name[2:]))
    return table[names].to_numpy()


_READERS = {".npy": lambda path: npy.read(path, "latent coordinates"), ".pkl": pickles.read, ".parquet": _parquet}
