"""Pickles of numeric arrays, read without running what they ask for, and written for programs that read them.

The few globals that NumPy's pickles name are answered by stand-ins that keep bytes, type and shape; no callable of the
pickle's choosing is ever called. Everything else is refused by name.
"""

import os
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np

from morphem.errors import InputError
from morphem.io.files import replacing
from morphem.io.reading import reading

PROTOCOL = 4
"""Understood since Python 3.4."""


def read(path: Path | str) -> Any:
    """The first object of the file: a numeric array, a number, or tuples and lists of them. Errors: InputError."""
    return read_all(path)[0]


def read_all(path: Path | str) -> list[Any]:
    """All objects of a file of pickles back to back. Errors: InputError, naming what was refused."""
    try:
        with reading(path, "a pickle"), open(path, "rb") as file:
            return list(_objects(file, os.fstat(file.fileno()).st_size))
    except InputError:
        raise
    except _Refused as refusal:
        raise InputError(f"{path}: {refusal} found, expected numeric arrays only; nothing in it was run") from refusal
    except Exception as error:  # a broken pickle can raise almost anything
        reason = type(error).__name__
        raise InputError(f"{path}: not a pickle of arrays ({reason}); give a .pkl file of cryoDRGN") from error


def write(path: Path | str, *objects: np.ndarray | tuple[np.ndarray, ...]) -> None:
    """Write arrays, or tuples of them, as pickles back to back. Errors: RunError when the disk is full."""
    with replacing(path) as aside, open(aside, "wb") as file:
        for value in objects:
            pickle.dump(value, file, PROTOCOL)


class _Refused(Exception):
    """Its text names what a pickle asked for."""


class _Dtype:
    """Stands for numpy.dtype: a kind and size, then a byte order."""

    def __init__(self, spec: Any, *_: Any):
        self.dtype = np.dtype(spec if isinstance(spec, str) else "O")
        if self.dtype.kind not in "biufc":
            raise _Refused(f"an array of dtype {spec}")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray while it is unpickled."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.array = _from_buffer(data, dtype, shape, "F" if is_fortran else "C").array


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: bytes, dtype: _Dtype, shape: tuple, order: Literal["C", "F"]) -> _Array:
    result = _Array()
    result.array = np.frombuffer(bytearray(data), dtype.dtype).reshape(shape, order=order)
    return result


def _scalar(dtype: _Dtype, data: bytes) -> float:
    return np.frombuffer(data, dtype.dtype)[0].item()


def _encode(text: str, *_: str) -> bytes:
    return text.encode("latin-1")


STAND_INS = {
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
} | {
    (f"{core}.{module}", name): stand_in
    for core in ("numpy.core", "numpy._core")
    for module, name, stand_in in (
        ("multiarray", "_reconstruct", _reconstruct),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _from_buffer),
    )
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise _Refused(f"{module}.{name}")
        return STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a reference to data outside the file")


def _objects(file, size: int):
    yield _plain(_Unpickler(file).load())
    while file.tell() < size:
        yield _plain(_Unpickler(file).load())


def _plain(value: Any) -> Any:
    """The arrays in place of their stand-ins."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, tuple | list):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, bool | int | float):
        return value
    raise _Refused(f"an object of type {type(value).__name__}")
