"""MRC stacks and maps (MRC2014), read lazily and written whole.

Axes: n images, z, y, x voxels. Pixel sizes in Å. Header layout: www.ccpem.ac.uk/mrc_format/mrc2014.php.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from morphem.errors import InputError
from morphem.io.files import replacing
from morphem.io.reading import reading

MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
HEADER_BYTES = HEADER_DTYPE.itemsize
LONGEST_SIDE = 2**16  # a side below this, read in the wrong byte order, is above it


@dataclass(frozen=True)
class Stack:
    """A stack whose pixels stay on disk; `images_nyx` has the file's own number type and byte order."""

    path: Path
    images_nyx: np.ndarray
    pixel_A: float
    notices: tuple[str, ...]


def open_stack(path: Path | str) -> Stack:
    """The images of a stack as a read-only memory map; `pixel_A` is 0 where the header says nothing.

    Errors: InputError for anything but an MRC file of mode 0, 1, 2, 6 or 12 that holds as many bytes as it claims.
    """
    path = Path(path)
    with reading(path, "an MRC file"):
        header = _read_header(path)
        layout = _layout(path, header)
        notices = _check_size(path, header, layout)
        images_nyx = np.memmap(path, layout.dtype, "r", layout.offset, layout.shape_nyx)
    return Stack(path, images_nyx, _pixel_A(header), notices)


def read_map(path: Path | str) -> tuple[np.ndarray, float]:
    """(map, pixel size in Å): float32 (z, y, x), whatever order of axes the file is in. Errors: as `open_stack`."""
    stack = open_stack(path)
    header = _read_header(stack.path)
    axes = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    order = [axes.index(axis) for axis in (3, 2, 1)] if sorted(axes) == [1, 2, 3] else [0, 1, 2]
    return np.ascontiguousarray(stack.images_nyx.transpose(order), dtype=np.float32), stack.pixel_A


def read_map_of(path: Path | str, box: int, pixel_A: float) -> np.ndarray:
    """A map (z, y, x) of that box and pixel size. Errors: InputError for another, or one with holes."""
    map_zyx, found_A = read_map(path)
    if map_zyx.shape != (box,) * 3 or (found_A > 0 and abs(found_A / pixel_A - 1) > 0.01):
        side = " × ".join(map(str, map_zyx.shape))
        raise InputError(f"{path}: {side} voxels of {found_A:g} Å, expected {box}³ of {pixel_A:g} Å; make it anew")
    if not np.isfinite(map_zyx).all():
        raise InputError(f"{path}: holds a voxel that is not finite; make it anew")
    return map_zyx


def write_map(path: Path | str, map_zyx: np.ndarray, pixel_A: float) -> None:
    """Write a density map, mode 2. Errors: RunError when the disk is full."""
    map_zyx = np.ascontiguousarray(map_zyx, dtype="<f4")
    header = _new_header(map_zyx.shape, pixel_A, is_map=True)
    _set_statistics(header, map_zyx)
    with replacing(path) as aside, open(aside, "wb") as file:
        file.write(header.tobytes())
        file.write(map_zyx.data)


@contextlib.contextmanager
def create_stack(path: Path | str, count: int, box: int, pixel_A: float) -> Iterator[np.ndarray]:
    """Yield a float32 (count, box, box) memory map to fill; the file takes its name when all has gone well.

    The disk space is claimed first, so that a full disk is a RunError here and not a crash while filling.
    """
    header = _new_header((count, box, box), pixel_A, is_map=False)
    with replacing(path) as aside:
        _claim(aside, HEADER_BYTES + 4 * count * box**2)
        images_nyx = np.memmap(aside, "<f4", "r+", HEADER_BYTES, (count, box, box))
        yield images_nyx
        images_nyx.flush()
        _set_statistics(header, images_nyx)
        with open(aside, "r+b") as file:
            file.write(header.tobytes())


class _Layout(NamedTuple):
    dtype: np.dtype
    offset: int
    shape_nyx: tuple[int, int, int]

    @property
    def end(self) -> int:
        return self.offset + self.dtype.itemsize * math.prod(self.shape_nyx)


def _read_header(path: Path) -> np.void:
    """The header in the byte order that makes the width plausible, whatever the machine stamp says."""
    with open(path, "rb") as file:
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise InputError(f"{path}: {len(raw)} bytes, fewer than an MRC header's {HEADER_BYTES}; copy the file again")
    for layout in (HEADER_DTYPE.newbyteorder("<"), HEADER_DTYPE.newbyteorder(">")):
        header = np.frombuffer(raw, layout)[0]
        if 0 < header["nx"] < LONGEST_SIDE:
            return header
    raise InputError(f"{path}: the header gives no image width in either byte order; give an MRC file")


def _layout(path: Path, header: np.void) -> _Layout:
    """Where the voxels lie, after the header and `nsymbt` bytes of extended header."""
    mode, extended = int(header["mode"]), int(header["nsymbt"])
    shape_nyx = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    if mode not in MODES:
        raise InputError(f"{path}: MRC mode {mode}, expected one of {sorted(MODES)}; convert the file to mode 2")
    if min(shape_nyx) < 1 or extended < 0:
        raise InputError(
            f"{path}: the header gives a shape of {shape_nyx} after {extended} more header bytes,"
            " expected positive sizes; copy the file again"
        )
    dtype = np.dtype(MODES[mode])
    if not header.dtype["nx"].isnative:
        dtype = dtype.newbyteorder("S")
    return _Layout(dtype, HEADER_BYTES + extended, shape_nyx)


def _check_size(path: Path, header: np.void, layout: _Layout) -> tuple[str, ...]:
    """Refuse a file shorter than its header claims; say where it is longer or bears no MRC name."""
    found, named = path.stat().st_size, bytes(header["map"]).startswith(b"MAP")
    if found < layout.end or (found > layout.end and not named):
        raise InputError(f"{path}: {found} bytes, but its header claims {layout.end}; copy or write the file again")
    notices = [] if named else ["blank MRC identifier, accepted because the byte count fits"]
    if found > layout.end:
        notices.append("more bytes than the MRC header claims, left unread")
    return tuple(notices)


def _pixel_A(header: np.void) -> float:
    return float(header["cella"]["x"] / header["mx"]) if header["mx"] > 0 else 0.0


def _new_header(shape_nyx: tuple[int, ...], pixel_A: float, is_map: bool) -> np.ndarray:
    """A little-endian mode 2 header: starts and origin 0, axes x, y, z, cell = sampling × pixel."""
    header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    nz, ny, nx = shape_nyx
    sampling = {"mx": nx, "my": ny, "mz": nz if is_map else 1}
    values = {"nx": nx, "ny": ny, "nz": nz, "mode": 2, "mapc": 1, "mapr": 2, "maps": 3, "ispg": int(is_map)}
    for name, value in (values | sampling).items():
        header[name] = value
    header["cella"] = tuple(m * pixel_A for m in sampling.values())
    header["cellb"] = (90, 90, 90)
    header["map"], header["machst"], header["nversion"] = b"MAP ", (0x44, 0x44, 0, 0), 20141
    return header


@np.errstate(invalid="ignore", over="ignore")
def _set_statistics(header: np.ndarray, images_nyx: np.ndarray) -> None:
    """Minimum, maximum, mean and root mean square deviation, in float64, a section at a time.

    Sums run over x − x₀, x₀ the first voxel: rms² = ⟨(x−x₀)²⟩ − ⟨x−x₀⟩².
    """
    first = float(images_nyx.flat[0])
    total = squares = 0.0
    low = high = first
    for image_yx in images_nyx:
        offset_yx = image_yx.astype(np.float64) - first
        total, squares = total + offset_yx.sum(), squares + np.square(offset_yx).sum()
        low, high = min(low, image_yx.min()), max(high, image_yx.max())
    mean = total / images_nyx.size
    header["dmin"], header["dmax"], header["dmean"] = low, high, first + mean
    header["rms"] = max(squares / images_nyx.size - mean**2, 0.0) ** 0.5


def _claim(path: Path, size: int) -> None:
    """A file of `size` bytes with its disk blocks taken, where the system can do that. Errors: OSError when full."""
    with open(path, "wb") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
