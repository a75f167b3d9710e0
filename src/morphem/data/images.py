"""The pixels of particles, read lazily from many stacks.

Axes: b images asked for, d box side. This is the only place that changes the sign of an image: the low-frequency CTF is
negative, so positive density predicts dark particles, while stacks usually hold white ones.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from morphem.data.particles import Particles
from morphem.errors import InputError
from morphem.io.mrc import Stack, open_stack

OPEN_STACKS = 256  # file handles are few


class Images:
    """`read(index) -> (b, box, box)` float32, white particles multiplied by −1.

    Errors: InputError at construction when a stack is missing, broken, of another box, or lacks a slice.
    """

    def __init__(self, particles: Particles, contrast: Literal["white", "dark"] | None = None):
        self.particles = particles
        self.contrast = contrast or ("dark" if particles.ctf is None else "white")
        self._open = functools.lru_cache(OPEN_STACKS)(open_stack)
        self.notices = self._check_stacks()

    def __len__(self) -> int:
        return len(self.particles)

    def read(self, index: np.ndarray) -> np.ndarray:
        """The images at `index`, in its order. Errors: InputError naming those that are constant or not finite."""
        table, index = self.particles, np.asarray(index)
        image_bdd = read_slices(table.stacks, table.stack_n[index], table.slice_n[index], table.box, self._open)
        self._check_values(index, image_bdd)
        if self.contrast == "white":
            np.negative(image_bdd, out=image_bdd)
        return image_bdd

    def _check_stacks(self) -> tuple[str, ...]:
        table, notices = self.particles, Counter()
        last_s = np.full(len(table.stacks), -1)
        np.maximum.at(last_s, table.stack_n, table.slice_n)
        for path, last in zip(table.stacks, last_s, strict=True):
            if last >= 0:
                notices.update(_checked(path, table, int(last)).notices)
        return tuple(f"{text} ({count} {'stack' if count == 1 else 'stacks'})" for text, count in notices.items())

    def _check_values(self, index: np.ndarray, image_bdd: np.ndarray) -> None:
        wrong = index[without_content(image_bdd)]
        if len(wrong):
            rows = ", ".join(f"{row + 1} ({self.particles.image_names[row]})" for row in wrong[:3])
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise InputError(
                f"{self.particles.path}: images constant or not finite in rows {rows}{more}; remove these rows"
            )


def _checked(path: Path, table: Particles, last: int) -> Stack:
    if not path.exists():
        raise InputError(f"{table.path}: its stack {path} was not found here or above; give the folder with --datadir")
    stack = open_stack(path)
    for complaint in complaints(path, stack.images_nyx.shape, table.path, table.box, last):
        raise InputError(complaint)
    return stack


def complaints(path: Path, shape_nyx: tuple[int, ...], table: Path, box: int | None, last: int) -> Iterator[str]:
    """Why a stack of this shape does not fit a table that says `box` and names slices up to `last`, from 0."""
    count, ny, nx = shape_nyx
    if ny != nx:
        yield f"{path}: images of {nx} × {ny} pixels, expected square ones; crop or pad them"
    elif nx % 2:
        yield f"{path}: an odd image box of {nx} pixels, expected an even one; crop or pad it by one"
    elif box is not None and nx != box:
        yield f"{path}: a box of {nx} pixels, but {table} says {box}; give its own stack"
    if last >= count:
        yield f"{path}: {count} images, but {table} names number {last + 1}; give its own stack"


def read_slices(
    stacks: Sequence[Path],
    stack_b: np.ndarray,
    slice_b: np.ndarray,
    box: int,
    opened: Callable[[Path], Stack] = open_stack,
) -> np.ndarray:
    """Images as their stacks hold them, float32 (b, box, box); read a stack at a time, slices ascending."""
    image_bdd = np.empty((len(stack_b), box, box), dtype=np.float32)
    order_b = np.lexsort((slice_b, stack_b))
    for place_b in np.split(order_b, np.flatnonzero(np.diff(stack_b[order_b])) + 1):
        if len(place_b):
            image_bdd[place_b] = opened(stacks[int(stack_b[place_b[0]])]).images_nyx[slice_b[place_b]]
    return image_bdd


def without_content(image_bdd: np.ndarray) -> np.ndarray:
    """Which images are constant or hold a pixel that is not finite, (b,)."""
    low_b, high_b = image_bdd.min((1, 2)), image_bdd.max((1, 2))
    return ~(np.isfinite(low_b) & np.isfinite(high_b) & (low_b < high_b))
