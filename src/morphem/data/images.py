"""The pixels of particles, read lazily from many stacks.

Axes: b images asked for, d box side. This is the only place that changes the sign of an image: the low-frequency CTF is
negative, so positive density predicts dark particles, while stacks usually hold white ones.
"""

import functools
from collections import Counter
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
        image_bdd = np.empty((len(index), table.box, table.box), dtype=np.float32)
        for place_b, stack in self._by_stack(index):
            image_bdd[place_b] = stack.images_nyx[table.slice_n[index[place_b]]]
        self._check_values(index, image_bdd)
        if self.contrast == "white":
            np.negative(image_bdd, out=image_bdd)
        return image_bdd

    def _by_stack(self, index: np.ndarray):
        """(places within `index`, the stack they are in), a stack at a time, slices ascending."""
        stack_b = self.particles.stack_n[index]
        order_b = np.lexsort((self.particles.slice_n[index], stack_b))
        for place_b in np.split(order_b, np.flatnonzero(np.diff(stack_b[order_b])) + 1):
            if len(place_b):
                yield place_b, self._open(self.particles.stacks[stack_b[place_b[0]]])

    def _check_stacks(self) -> tuple[str, ...]:
        table, notices = self.particles, Counter()
        last_s = np.full(len(table.stacks), -1)
        np.maximum.at(last_s, table.stack_n, table.slice_n)
        for path, last in zip(table.stacks, last_s, strict=True):
            if last >= 0:
                notices.update(_checked(path, table, int(last)).notices)
        return tuple(f"{text} ({count} {'stack' if count == 1 else 'stacks'})" for text, count in notices.items())

    def _check_values(self, index: np.ndarray, image_bdd: np.ndarray) -> None:
        low_b, high_b = image_bdd.min((1, 2)), image_bdd.max((1, 2))
        wrong = index[~(np.isfinite(low_b) & np.isfinite(high_b) & (low_b < high_b))]
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
    count, ny, nx = stack.images_nyx.shape
    if ny != nx:
        raise InputError(f"{path}: images of {nx} × {ny} pixels, expected square ones; crop or pad them")
    if nx % 2:
        raise InputError(f"{path}: an odd image box of {nx} pixels, expected an even one; crop or pad it by one")
    if nx != table.box:
        raise InputError(f"{path}: a box of {nx} pixels, but {table.path} says {table.box}; give its own stack")
    if last >= count:
        raise InputError(f"{path}: {count} images, but {table.path} names number {last + 1}; give its own stack")
    return stack
