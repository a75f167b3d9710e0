"""What an inspection looks at: a table completed by the options as far as they fit, its stacks, some of its images.

Axes: n particles, m images looked at, s stacks, d box side.
"""

import contextlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from morphem.data import cryodrgn, tables
from morphem.data.contrast import brightness, certainty
from morphem.data.dataset import Source
from morphem.data.findings import Finding, Findings
from morphem.data.images import complaints, read_slices, without_content
from morphem.errors import InputError
from morphem.io.mrc import open_stack
from morphem.run import progress

CHUNK_PIXELS = 2**22
"""Of the images held at once."""


@dataclass(frozen=True)
class Header:
    """What a stack says without its pixels."""

    shape_nyx: tuple[int, ...]
    pixel_A: float
    number_type: str
    notices: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Sample:
    """Images that were looked at."""

    row_m: np.ndarray
    """Their rows in the evidence's table."""
    empty_m: np.ndarray
    """Which are constant or not finite."""
    brightness_m: np.ndarray
    """Centre minus rim of the others, as their stacks hold them."""

    @property
    def certainty(self) -> float:
        """Of being white (+) or dark (−), in standard errors."""
        return certainty(self.brightness_m)


@dataclass(frozen=True, eq=False)
class Evidence:
    """A set of particles as far as it could be read; rows are those that --ind keeps."""

    source: Source
    table: tables.Table
    number_n: np.ndarray
    """The rows' numbers in the file, from 0."""
    stacks: tuple[Path, ...]
    """Empty where a row's image has no name that makes sense."""
    stack_n: np.ndarray
    slice_n: np.ndarray
    headers: dict[int, Header]
    """Of the stacks that could be opened."""
    broken: tuple[Finding, ...]
    """Why the others that exist could not."""
    sample: Sample | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def has_ctf(self) -> bool:
        return not self.source.no_ctf

    @property
    def contrast(self) -> str:
        """The contrast option, or its default."""
        return self.source.contrast or ("white" if self.has_ctf else "dark")

    @cached_property
    def box(self) -> int | None:
        """The table's one box, where it has one."""
        with contextlib.suppress(InputError):
            return tables.box_of(self.table)
        return None

    @cached_property
    def last_s(self) -> np.ndarray:
        """The last slice that a row names in each stack, from 0; −1 for a stack that no row names."""
        last_s = np.full(len(self.stacks), -1)
        if len(last_s):
            np.maximum.at(last_s, self.stack_n, self.slice_n)
        return last_s

    def complaints(self, stack: int) -> list[str]:
        """Why a stack that can be opened does not fit the table."""
        shape_nyx = self.headers[stack].shape_nyx
        return list(complaints(self.stacks[stack], shape_nyx, self.table.path, self.box, int(self.last_s[stack])))


def gather(source: Source, most_images: int | None, findings: Findings) -> Evidence:
    """Read all that can be read, at most so many images; what is refused on the way becomes a finding.

    Errors: InputError where there is no table to look at.
    """
    table = tables.any_table(source.particles, source.passthrough)
    none_n = np.zeros(len(table), dtype=np.int64)
    stacks, stack_n, slice_n = findings.attempt(
        tables.find_stacks, table, source.datadir, otherwise=((), none_n, none_n)
    )
    broken = Findings()
    headers = {i: broken.attempt(_header, path) for i, path in enumerate(stacks) if path.exists()}
    headers = {i: header for i, header in headers.items() if header}
    table = _completed(table, next((stacks[i] for i in headers), None), source, findings)
    number_n = np.arange(len(table))
    if source.ind is not None:
        number_n = findings.attempt(cryodrgn.read_index, source.ind, len(table), otherwise=number_n)
    rows = (table.take(number_n), number_n, stacks, stack_n[number_n], slice_n[number_n])
    evidence = Evidence(source, *rows, headers, tuple(broken))
    return replace(evidence, sample=_look(evidence, most_images))


def _header(path: Path) -> Header:
    stack = open_stack(path)
    images_nyx = stack.images_nyx
    return Header(images_nyx.shape, stack.pixel_A, images_nyx.dtype.name, stack.notices)


def _completed(table: tables.Table, stack: Path | None, source: Source, findings: Findings) -> tables.Table:
    """The table with what the stack, options and pickles add to it."""
    adds = tables.completions(stack, source.ctf, source.pixel_size, source.box, source.amplitude_contrast)
    for add in adds:
        table = findings.attempt(add, table, otherwise=table)
    table, notices = findings.attempt(tables.add_pixel_of_stack, table, stack, otherwise=(table, []))
    remedy = "give --pixel-size where that is wrong"
    findings.add(Finding("note", notice, str(table.path), remedy) for notice in notices)
    if source.poses is not None:
        table = findings.attempt(tables.add_poses, table, source.poses, otherwise=table)
    return table


def _look(evidence: Evidence, most_images: int | None) -> Sample | None:
    """At images evenly spread over the rows whose stacks fit."""
    fit = [i for i in evidence.headers if not evidence.complaints(i)]
    row_m = np.flatnonzero(np.isin(evidence.stack_n, fit))
    if evidence.box is None or not len(row_m):
        return None
    if most_images is not None:
        row_m = row_m[np.unique(np.linspace(0, len(row_m) - 1, most_images).round().astype(int))]
    empty, bright = [], []
    with progress(len(row_m), "Reading images") as bar:
        for row_b in np.array_split(row_m, np.arange(0, len(row_m), max(CHUNK_PIXELS // evidence.box**2, 1))[1:]):
            image_bdd = read_slices(evidence.stacks, evidence.stack_n[row_b], evidence.slice_n[row_b], evidence.box)
            empty.append(without_content(image_bdd))
            bright.append(brightness(image_bdd[~empty[-1]]))
            bar.advance(len(row_b))
    return Sample(row_m, np.concatenate(empty), np.concatenate(bright))
