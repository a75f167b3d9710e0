"""Images chosen by comparisons of what is known of them, as in `pc1 > 0.5 and umap2 < 3`; no expression is evaluated.

Axes: n images.
"""

import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from morphem.ensemble import Ensemble
from morphem.errors import InputError

COMPARISON = re.compile(r"([A-Za-z_]\w*)\s*(<=|>=|==|!=|<|>)\s*([-+.\w]+)")
OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
TABLES = (
    "latents.parquet",
    "analysis/coordinates.parquet",
    "analysis/clusters.parquet",
    "analysis/landscape/coordinates.parquet",
    "validation/particles.parquet",
)
"""Tables of a run's folder with a row for each image."""


def rows_where(ensemble: Ensemble, where: str) -> np.ndarray:
    """Rows of the images for which every comparison holds; an unknown number (NaN) is not equal to any.

    Errors: InputError for what is no comparison, a name that is no column, and where no image is left.
    """
    column_of = _columns(ensemble)
    holds_n = np.ones(len(ensemble), bool)
    for name, compare, number in comparisons(where):
        if name not in column_of:
            known = ", ".join(column_of)
            raise InputError(f'--where "{where}": {ensemble.folder} has no column {name}; it has {known}')
        holds_n &= compare(column_of[name], number)
    if not holds_n.any():
        raise InputError(f'--where "{where}": no image of {ensemble.folder} is so; give wider limits')
    return np.flatnonzero(holds_n)


def comparisons(where: str) -> Iterator[tuple[str, Callable, float]]:
    """Name of a column, operator, number. Errors: InputError for anything else."""
    for part in re.split(r"\sand\s", where):
        found = COMPARISON.fullmatch(part.strip())
        number = _number(found[3]) if found else None
        if found is None or number is None:
            expected = 'comparisons of columns with numbers, joined by and, as in "pc1 > 0.5 and umap2 < 3"'
            raise InputError(f'--where "{where}": "{part.strip()}" found, expected {expected}')
        yield found[1], OPERATORS[found[2]], number


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _columns(ensemble: Ensemble) -> dict[str, np.ndarray]:
    """Columns of numbers by name, of every table that the run's folder has."""
    column_of: dict[str, np.ndarray] = {}
    for name in TABLES:
        path = ensemble.folder / name
        if path.is_file():
            column_of = _read(path, len(ensemble)) | column_of
    return column_of


def _read(path: Path, images: int) -> dict[str, np.ndarray]:
    table = pd.read_parquet(path)
    if len(table) != images:
        raise InputError(f"{path}: {len(table)} rows, expected {images}, one for each image; make it again")
    numbers = table.select_dtypes(["number", "bool"]).drop(columns="index", errors="ignore")
    return {str(name): column.to_numpy(np.float64) for name, column in numbers.items()}
