"""cryoDRGN's pickles of poses, CTF parameters and row numbers, read and written, and of latents, written.

Axes: n particles, q latent. pose.pkl: (R, t) or R, t as a fraction of the box.
ctf.pkl, n × 9: D, pixel, U, V, α₀°, kV, Cs, w, φ°. z.pkl: μ, then log σ². Numbers are written in float32.
"""

from pathlib import Path

import numpy as np

from morphem.errors import InputError
from morphem.io import npy, pickles
from morphem.io.reading import reading
from morphem.physics.ctf import CtfParameters

CTF_FIELDS = (
    "defocus_u_A_n",
    "defocus_v_A_n",
    "astigmatism_rad_n",
    "voltage_kV_n",
    "cs_mm_n",
    "amplitude_contrast_n",
    "phase_shift_rad_n",
)


def read_poses(path: Path | str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(rotation_n33, shift_n2 as a fraction of the box); absent shifts are 0.

    Errors: InputError for other shapes, another number of rows than `count`, or shifts beyond ±1, which are pixels.
    """
    found = pickles.read(path)
    rotation, *rest = found if isinstance(found, tuple) else (found,)
    rotation_n33 = _expect(path, rotation, (count, 3, 3))
    shift_n2 = _expect(path, rest[0], (count, 2)) if rest else np.zeros((count, 2))
    largest = np.abs(shift_n2).max(initial=0)
    if largest > 1:
        raise InputError(f"{path}: a shift of {largest:g}, expected fractions of the box; divide pixels by the box")
    return rotation_n33, shift_n2


def write_poses(path: Path | str, rotation_n33: np.ndarray, shift_n2: np.ndarray) -> None:
    """Write (R, t), t as a fraction of the box."""
    pickles.write(path, (_single(rotation_n33), _single(shift_n2)))


def read_ctf(path: Path | str, count: int, box: int | None) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
    """({CtfParameters' field: values}, pixel_A_n of a stack of box d, d): pixel = D·pixel/d per row; d is D for None.

    Errors: InputError for another shape than (count, 9), or several D where the box is to be taken from them.
    """
    side_n, pixel_A_n, *columns = _expect(path, pickles.read(path), (count, 9)).T
    sides = np.unique(side_n)
    if box is None and len(sides) != 1:
        raise InputError(f"{path}: {len(sides)} box sizes, expected one; say which with --box")
    box = int(sides[0]) if box is None else box
    values: dict[str, np.ndarray] = dict(zip(CTF_FIELDS, columns, strict=True))
    for angle in ("astigmatism_rad_n", "phase_shift_rad_n"):
        values[angle] = np.radians(values[angle])
    return values, side_n * pixel_A_n / box, box


def write_ctf(path: Path | str, ctf: CtfParameters, pixel_A_n: np.ndarray, box: int) -> None:
    """Write nine columns a row. Scale and B factors have no place among them."""
    columns = {name: getattr(ctf, name) for name in CTF_FIELDS}
    for angle in ("astigmatism_rad_n", "phase_shift_rad_n"):
        columns[angle] = np.degrees(columns[angle])
    pickles.write(path, _single(np.stack([np.full(len(ctf), box), pixel_A_n, *columns.values()], 1)))


def write_latents(path: Path | str, z_nq: np.ndarray, variance_nq: np.ndarray) -> None:
    """Write means, then the logarithms of the posterior variances, which `data/latents.py` passes over."""
    pickles.write(path, _single(z_nq), _single(np.log(np.maximum(variance_nq, np.finfo(np.float32).tiny))))


def write_index(path: Path | str, row_n: np.ndarray) -> None:
    """Write row numbers from 0."""
    pickles.write(path, row_n.astype(np.int64))


def read_index(path: Path | str, count: int) -> np.ndarray:
    """Row numbers from 0, from a .pkl, .npy or .txt. Errors: InputError for other things than those below `count`."""
    found = READERS.get(Path(path).suffix, pickles.read)(path)
    if isinstance(found, list) and all(isinstance(row, int) for row in found):
        found = np.array(found)
    if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
        raise InputError(f"{path}: {_shown(found)} found, expected row numbers from 0; give a list of at least one")
    if not 0 <= found.min() <= found.max() < count:
        raise InputError(f"{path}: rows {found.min()} to {found.max()}, expected 0 to {count - 1}; give its own file")
    return found


def _npy_rows(path: Path | str) -> np.ndarray:
    return npy.read(path, "row numbers")


def _text_rows(path: Path | str) -> list[int]:
    with reading(path, "row numbers"):
        words = Path(path).read_text(encoding="utf-8", errors="replace").replace(",", " ").split()
    wrong = next((word for word in words if not (word.isascii() and word.isdigit())), None)
    if wrong is not None:
        raise InputError(f'{path}: "{wrong[:40]}" found, expected row numbers from 0; give whole numbers')
    return [int(word) for word in words]


READERS = {".npy": _npy_rows, ".txt": _text_rows}
"""Of row numbers; files of other names are pickles."""


def _single(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)


def _expect(path: Path | str, found: object, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(found, np.ndarray) or found.shape != shape:
        raise InputError(
            f"{path}: {_shown(found)} found, expected {shape} for {shape[0]} images; give this table's file"
        )
    if not np.isfinite(found).all():
        raise InputError(f"{path}: holds a number that is not finite; make the file again")
    return found.astype(np.float64)


def _shown(found: object) -> str:
    return f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
