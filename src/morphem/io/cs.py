"""cryoSPARC's .cs tables: NumPy structured arrays, one row a particle, joined by `uid`."""

from pathlib import Path

import numpy as np

from morphem.errors import InputError
from morphem.io import npy
from morphem.io.files import replacing


def read(path: Path | str, passthrough: Path | str | None = None) -> np.ndarray:
    """The table, with the fields it lacks taken from the passthrough's rows of the same uid.

    Errors: InputError where a file is no such table, holds Python objects, or the passthrough lacks a uid.
    """
    table = _load(path)
    if passthrough is None:
        return table
    other = _load(passthrough)
    row_n = rows_of(table, other, path, passthrough)
    return with_fields(table, {name: other[name][row_n] for name in _names(other) if name not in _names(table)})


def write(path: Path | str, table: np.ndarray) -> None:
    """Write all fields with their types. Errors: RunError when the disk is full."""
    with replacing(path) as aside, open(aside, "wb") as file:
        np.save(file, table, allow_pickle=False)


def with_fields(table: np.ndarray, values: dict[str, np.ndarray]) -> np.ndarray:
    """A copy with fields replaced (keeping their types, but texts get the room they need) or appended."""
    kept = [(name, _roomy(table.dtype[name], values.get(name))) for name in _names(table)]
    new = [(name, value.dtype, value.shape[1:]) for name, value in values.items() if name not in _names(table)]
    changed = np.empty(len(table), dtype=kept + new)
    for name in _names(changed):
        changed[name] = values[name] if name in values else table[name]
    return changed


def _roomy(kind: np.dtype, values: np.ndarray | None) -> np.dtype:
    """The type of a field that is to hold `values`: its own, unless they are texts that it would cut short."""
    return kind if values is None or kind.kind not in "SU" else np.promote_types(kind, values.dtype)


def _names(table: np.ndarray) -> tuple[str, ...]:
    return table.dtype.names or ()


def _load(path: Path | str) -> np.ndarray:
    table = npy.read(path, "a .cs file")
    if "uid" not in _names(table):
        raise InputError(f'{path}: no field "uid", expected a cryoSPARC table; give its .cs file')
    return table


def rows_of(table: np.ndarray, other: np.ndarray, path: Path | str, passthrough: Path | str) -> np.ndarray:
    """The row of `other` with the uid of each row of `table`. Errors: InputError where it lacks one."""
    order = np.argsort(other["uid"])
    place_n = np.searchsorted(other["uid"], table["uid"], sorter=order)
    row_n = order[np.minimum(place_n, len(other) - 1)] if len(other) else np.zeros(len(table), int)
    missing = np.setdiff1d(table["uid"], other["uid"])
    if len(missing):
        raise InputError(
            f"{path}: {len(missing)} particles (uid {missing[0]} …) are not in {passthrough};"
            " give the passthrough file of the same job"
        )
    return row_n
