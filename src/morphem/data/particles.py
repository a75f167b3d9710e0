"""Particles: one row per image in physical units, whatever program wrote the table.

Axes: n particles. Å, radians, kV; x_image = R x_map; t is how far content must move to be centred (RELION's sign).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from morphem.data import cryodrgn, tables
from morphem.data.cryosparc import CsTable
from morphem.data.relion import OPTICS, StarTable
from morphem.errors import InputError
from morphem.io import star
from morphem.physics.ctf import CtfParameters


@dataclass(frozen=True, eq=False)
class Particles:
    """The table of a data set; immutable, without pixels. Made by `read`, or from its fields."""

    path: Path
    box: int
    pixel_A_n: np.ndarray
    rotation_n33: np.ndarray
    """float64; not a number where the table was read without poses."""
    shift_A_n2: np.ndarray
    ctf: CtfParameters | None
    optics_n: np.ndarray
    """Index into `optics_names`."""
    optics_names: tuple[str, ...]
    stacks: tuple[Path, ...]
    stack_n: np.ndarray
    """Index into `stacks`."""
    slice_n: np.ndarray
    """Place in the stack, from 0."""
    half_n: np.ndarray
    """Half-set 1 or 2, 0 where unknown; int8."""
    micrograph_n: np.ndarray | None = None
    notices: tuple[str, ...] = ()
    table: StarTable | CsTable | None = field(default=None, repr=False)
    """The columns as they came in, for `write`."""

    @staticmethod
    def read(
        path: Path | str,
        *,
        datadir: Path | str | None = None,
        poses: Path | str | None = None,
        ctf: Path | str | None = None,
        ind: Path | str | None = None,
        no_ctf: bool = False,
        require_poses: bool = True,
        pixel_A: float | None = None,
        box: int | None = None,
        amplitude_contrast: float | None = None,
        passthrough: Path | str | None = None,
    ) -> "Particles":
        """Read a .star, a .cs (with its passthrough), or a stack or .txt list of stacks with cryoDRGN's pickles.

        `poses` and `ctf` take the place of the table's own; `ind` keeps the rows it numbers, from 0. `pixel_A`, `box`
        and `amplitude_contrast` say what the table does not. Stacks are looked up in `datadir`, then in the table's
        folder and those above it, then here; a missing one is no error yet (see `Images`).
        Errors: InputError for what is missing, contradicts an option, or is no set of untilted single images.
        """
        path = Path(path)
        table = tables.open_table(path, passthrough)
        stacks, stack_n, slice_n = tables.find_stacks(table, datadir)
        table, notices = tables.add_options(table, stacks[0], ctf, pixel_A, box, amplitude_contrast)
        if poses is not None:
            table = tables.add_poses(table, poses)
        pixel_A_n = tables.pixel_A_of(table)
        rotation_n33, shift_A_n2 = tables.poses_of(table, pixel_A_n, require_poses)
        parameters, more = (None, []) if no_ctf else tables.ctf_of(table)
        optics_n, optics_names = table.groups()
        particles = Particles(
            path,
            tables.box_of(table),
            pixel_A_n,
            rotation_n33,
            shift_A_n2,
            parameters,
            optics_n,
            optics_names,
            stacks,
            stack_n,
            slice_n,
            tables.halves_of(table),
            table.micrograph_n(),
            (*notices, *more, *tables.not_applied(table)),
            table if path.suffix in (".star", ".cs") else None,
        )
        return particles if ind is None else particles.take(cryodrgn.read_index(ind, len(particles)))

    def __len__(self) -> int:
        return len(self.slice_n)

    @property
    def has_poses(self) -> bool:
        return bool(np.isfinite(self.rotation_n33).all())

    @property
    def image_names(self) -> list[str]:
        """`000001@stack.mrcs` of each particle, the stack as its table calls it."""
        stacks = [str(self.stacks[i]) for i in self.stack_n] if self.table is None else self.table.images()[0]
        return [f"{number + 1:06d}@{stack}" for number, stack in zip(self.slice_n, stacks, strict=True)]

    def take(self, index: np.ndarray) -> "Particles":
        """The rows at `index` (numbers or a mask), in its order."""
        index = np.arange(len(self))[index]
        per_row = [f.name for f in fields(self) if f.name.endswith(("_n", "_n2", "_n33"))]
        rows = {name: getattr(self, name)[index] for name in per_row if getattr(self, name) is not None}
        return replace(self, table=self.table and self.table.take(index), ctf=self.ctf and self.ctf.take(index), **rows)

    def with_poses(self, rotation_n33: np.ndarray, shift_A_n2: np.ndarray) -> "Particles":
        """The same particles with new poses; of the columns that came in only those of the pose change."""
        table = self.table
        if table is not None:
            table = table.with_columns(table.pose_columns(rotation_n33, shift_A_n2, self.pixel_A_n))
        return replace(self, rotation_n33=rotation_n33, shift_A_n2=shift_A_n2, table=table)

    def write(self, path: Path | str, columns: Mapping[str, np.ndarray] | None = None) -> None:
        """Write a STAR file, or a .cs where these came from one, with every column that came in and `columns`.

        Image names stay as they are. Where no STAR table came in a RELION 3.1 one is made.
        Errors: InputError for a .cs of particles from elsewhere; RunError when the disk is full.
        """
        path, table = Path(path), self.table
        if path.suffix == ".cs" and not isinstance(table, CsTable):
            raise InputError(f"{path}: {self.path} has no .cs fields to write; give a name that ends in .star")
        if table is None or (path.suffix != ".cs" and isinstance(table, CsTable)):
            table = _standard(self, path.parent)
        table.with_columns(columns or {}).write(path)


def _standard(particles: Particles, folder: Path) -> StarTable:
    """A RELION 3.1 table made from physical units alone; stacks inside `folder` are named relative to it."""
    ctf = particles.ctf
    per_group = [particles.optics_n, particles.pixel_A_n]
    if ctf is not None:
        per_group += [ctf.voltage_kV_n, ctf.cs_mm_n, ctf.amplitude_contrast_n]
    group_g, group_n = np.unique(np.stack(per_group, 1), axis=0, return_inverse=True)
    optics = {
        "rlnOpticsGroup": np.arange(1, len(group_g) + 1),
        "rlnOpticsGroupName": [particles.optics_names[int(g)] for g in group_g[:, 0]],
        "rlnImagePixelSize": group_g[:, 1],
        "rlnImageSize": np.full(len(group_g), particles.box),
        "rlnImageDimensionality": np.full(len(group_g), 2),
    } | dict(zip(OPTICS, group_g[:, 2:].T, strict=False))
    stacks = [_shown(stack, folder) for stack in particles.stacks]
    names = [f"{s + 1:06d}@{stacks[i]}" for s, i in zip(particles.slice_n, particles.stack_n, strict=True)]
    rows = {"rlnImageName": names, "rlnOpticsGroup": group_n.ravel() + 1, **_known_columns(particles)}
    table = StarTable(particles.path, {"optics": _tokens(optics), "particles": _tokens(rows)}, "particles")
    if not particles.has_poses:
        return table
    return table.with_columns(table.pose_columns(particles.rotation_n33, particles.shift_A_n2, particles.pixel_A_n))


def _known_columns(particles: Particles) -> dict:
    columns = {}
    if particles.ctf is not None:
        per_row = {field: names for field, names in StarTable.CTF.items() if names[0] not in OPTICS}
        columns = {name: getattr(particles.ctf, field) / unit for field, (name, unit) in per_row.items()}
    if particles.micrograph_n is not None:
        columns["rlnMicrographName"] = particles.micrograph_n
    if (particles.half_n > 0).all():
        columns["rlnRandomSubset"] = particles.half_n
    return columns


def _tokens(columns: Mapping) -> pd.DataFrame:
    table = pd.DataFrame({name: star.tokens(values) for name, values in columns.items()}, dtype=str)
    table.attrs["comments"] = ["# version 30001"]
    return table


def _shown(stack: Path, folder: Path) -> str:
    whole = stack.resolve() if stack.exists() else stack
    return str(whole.relative_to(folder.resolve()) if whole.is_relative_to(folder.resolve()) else whole)
