"""RELION's particle tables (3.0 to 5): what their columns mean, and how they are written.

Axes: n particles. A column is looked for among the particles, then in the row's own optics group.
Shifts: rlnOriginX/YAngst in Å, or rlnOriginX/Y in pixels (3.0). Pixel: rlnImagePixelSize, or DetectorPixelSize·10⁴/Magnification.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd

from morphem.errors import InputError
from morphem.io import star
from morphem.physics import rotations

if TYPE_CHECKING:
    from morphem.data.particles import Particles

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS_A = ("rlnOriginXAngst", "rlnOriginYAngst")
ORIGINS_PX = ("rlnOriginX", "rlnOriginY")
OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnMagnification", "rlnDetectorPixelSize")
IDENTITY = {
    "rlnBeamTiltX": 0, "rlnBeamTiltY": 0, "rlnOddZernike": 0, "rlnEvenZernike": 0,
    "rlnMagMat00": 1, "rlnMagMat01": 0, "rlnMagMat10": 0, "rlnMagMat11": 1,
}  # fmt: skip
"""The corrections that this program does not apply, each with the value that asks for none."""


@dataclass(frozen=True, eq=False)
class StarTable:
    """The blocks of a STAR file; `name` is the block that holds a row per particle."""

    path: Path
    blocks: Mapping[str, pd.DataFrame]
    name: str

    POSES: ClassVar = ANGLES
    PIXEL: ClassVar = "rlnImagePixelSize"
    CTF: ClassVar = {
        "defocus_u_A_n": ("rlnDefocusU", 1.0),
        "defocus_v_A_n": ("rlnDefocusV", 1.0),
        "astigmatism_rad_n": ("rlnDefocusAngle", np.pi / 180),
        "voltage_kV_n": ("rlnVoltage", 1.0),
        "cs_mm_n": ("rlnSphericalAberration", 1.0),
        "amplitude_contrast_n": ("rlnAmplitudeContrast", 1.0),
        "phase_shift_rad_n": ("rlnPhaseShift", np.pi / 180),
        "scale_n": ("rlnCtfScalefactor", 1.0),
        "b_factor_A2_n": ("rlnCtfBfactor", 1.0),
    }

    @classmethod
    def read(cls, path: Path) -> "StarTable":
        """Errors: InputError where no block names images, or where the images are a tilt series or premultiplied."""
        blocks = star.read(path)
        names = [name for name in ("particles", "images", *blocks) if "rlnImageName" in blocks.get(name, ())]
        if not names:
            found = ", ".join(f"data_{name}" for name in blocks)
            raise InputError(f"{path}: no column _rlnImageName in {found}; give a STAR file of particle images")
        table = cls(path, blocks, names[0])
        table._refuse_other_images()
        return table

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows(self) -> pd.DataFrame:
        return self.blocks[self.name]

    @cached_property
    def optics_row_n(self) -> np.ndarray:
        """The row of the optics block that each particle belongs to."""
        if "rlnOpticsGroup" not in self.rows:
            raise InputError(f"{self.path}: an optics block but no column _rlnOpticsGroup; add it to the particles")
        groups = star.texts(self.blocks["optics"]["rlnOpticsGroup"])
        row_n = pd.Index(groups).get_indexer(pd.Index(star.texts(self.rows["rlnOpticsGroup"])))
        if (row_n < 0).any():
            missing = self.rows["rlnOpticsGroup"].iloc[int(np.argmin(row_n))]
            raise InputError(f"{self.path}: optics group {missing} is not in data_optics ({', '.join(groups)}); add it")
        return row_n

    def column(self, name: str) -> np.ndarray | None:
        """A column's texts, one per particle, or None."""
        if name in self.rows:
            return np.array(star.texts(self.rows[name]), dtype=object)
        if name in self.blocks.get("optics", ()):
            return np.array(star.texts(self.blocks["optics"][name]), dtype=object)[self.optics_row_n]
        return None

    def number(self, name: str) -> np.ndarray | None:
        """A column's numbers, float64, or None. Errors: InputError at the first cell that is not a finite number."""
        cells = self.column(name)
        if cells is None:
            return None
        numbers = pd.to_numeric(pd.Series(cells), errors="coerce").to_numpy(np.float64)
        wrong = np.flatnonzero(~np.isfinite(numbers))
        if len(wrong):
            raise InputError(
                f'{self.path}: _{name} of row {wrong[0] + 1} is "{cells[wrong[0]]}", expected a number; repair the file'
            )
        return numbers

    def images(self) -> tuple[list[str], np.ndarray]:
        """(the stack's name, slice from 0) of each particle: `000001@stack.mrcs` is slice 0."""
        parts = [name.partition("@") for name in star.texts(self.rows["rlnImageName"])]
        wrong = next((i for i, (number, at, _) in enumerate(parts) if at and not (number.isdecimal() and int(number))), None)
        if wrong is not None:
            raise InputError(
                f'{self.path}: image name "{"".join(parts[wrong])}" of row {wrong + 1}, expected'
                " number@stack with numbers from 1; repair it"
            )
        slices = [int(number) - 1 if at else 0 for number, at, _ in parts]
        return [stack if at else number for number, at, stack in parts], np.array(slices, dtype=np.int64)

    def pixel_A_n(self) -> np.ndarray | None:
        pixel_A_n = self.number("rlnImagePixelSize")
        detector_um_n, magnification_n = self.number("rlnDetectorPixelSize"), self.number("rlnMagnification")
        if pixel_A_n is None and detector_um_n is not None and magnification_n is not None:
            return detector_um_n * 1e4 / magnification_n
        return pixel_A_n

    def box_n(self) -> np.ndarray | None:
        return self.number("rlnImageSize")

    def box_columns(self, box: int) -> dict[str, np.ndarray]:
        return {"rlnImageSize": np.full(len(self), box)}

    def poses(self, pixel_A_n: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """(rotation_n33, shift_A_n2), or None without angles; absent origins are 0."""
        angles = [self.number(name) for name in ANGLES]
        if any(angle is None for angle in angles):
            return None
        shifts = [self._shift_A(*names, pixel_A_n) for names in zip(ORIGINS_A, ORIGINS_PX, strict=True)]
        return rotations.from_relion(np.stack(angles, 1)), np.stack(shifts, 1)

    def _shift_A(self, in_A: str, in_pixels: str, pixel_A_n: np.ndarray) -> np.ndarray:
        shift_A, shift_px = self.number(in_A), self.number(in_pixels)
        if shift_A is not None:
            return shift_A
        return np.zeros(len(self)) if shift_px is None else shift_px * pixel_A_n

    def pose_columns(self, rotation_n33: np.ndarray, shift_A_n2: np.ndarray, pixel_A_n: np.ndarray) -> dict:
        """The columns to change for new poses: in pixels where the table has only such, else in Å."""
        columns = dict(zip(ANGLES, rotations.to_relion(rotation_n33).T, strict=True))
        has_A, has_px = ORIGINS_A[0] in self.rows, ORIGINS_PX[0] in self.rows
        if has_px:
            columns |= dict(zip(ORIGINS_PX, shift_A_n2.T / pixel_A_n, strict=True))
        if has_A or not has_px:
            columns |= dict(zip(ORIGINS_A, shift_A_n2.T, strict=True))
        return columns

    def groups(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """(optics group from 0 of each particle, their names); without an optics block, rows of equal optics."""
        optics = self.blocks.get("optics")
        if optics is not None:
            return self.optics_row_n, tuple(star.texts(optics[_either(optics, "rlnOpticsGroupName", "rlnOpticsGroup")]))
        present = [name for name in OPTICS if name in self.rows]
        group_n = self.rows.groupby(present, sort=False).ngroup().to_numpy() if present else np.zeros(len(self), int)
        return group_n, tuple(f"opticsGroup{i + 1}" for i in range(group_n.max(initial=0) + 1))

    def half_n(self) -> np.ndarray | None:
        return self.number("rlnRandomSubset")

    def micrograph_n(self) -> np.ndarray | None:
        return self.column("rlnMicrographName")

    def corrections(self) -> list[str]:
        """The columns that ask for a correction of the optics which is not applied here."""
        return [name for name, none in IDENTITY.items() if _differs(self.column(name), none)]

    def take(self, index: np.ndarray) -> "StarTable":
        return self._with_rows(self.rows.iloc[index])

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> "StarTable":
        """The particles with columns replaced or appended."""
        return self._with_rows(self.rows.assign(**{name: star.tokens(values) for name, values in columns.items()}))

    def write(self, path: Path) -> None:
        star.write(path, dict(self.blocks))

    def _with_rows(self, rows: pd.DataFrame) -> "StarTable":
        rows.attrs = dict(self.rows.attrs)
        return replace(self, blocks={**self.blocks, self.name: rows})

    def _refuse_other_images(self) -> None:
        if any(_differs(self.column(name), 0) for name in ("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped")):
            raise InputError(f"{self.path}: images already multiplied by their CTF or its sign; extract them again without")
        tomo = [name for name in self.rows if name.startswith("rlnTomo")]
        if tomo or self._tilts_differ_within_groups():
            found = f"column _{tomo[0]}" if tomo else "groups whose images differ in dose and tilt"
            raise InputError(f"{self.path}: a tilt series ({found}), expected single particles; give untilted images")

    def _tilts_differ_within_groups(self) -> bool:
        """As Warp writes them: B factors follow the dose, scale factors the cosine of the tilt."""
        names = ["rlnCtfBfactor", "rlnCtfScalefactor"]
        if not {"rlnGroupName", *names} <= set(self.rows):
            return False
        return bool((self.rows.groupby("rlnGroupName")[names].nunique() > 1).all(axis=1).any())


def standard(particles: "Particles", folder: Path) -> StarTable:
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


def _known_columns(particles: "Particles") -> dict:
    columns = {}
    if particles.ctf is not None:
        columns = {name: getattr(particles.ctf, field) / unit for field, (name, unit) in StarTable.CTF.items() if name not in OPTICS}
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


def _either(table: pd.DataFrame, first: str, second: str) -> str:
    return first if first in table else second


def _differs(cells: np.ndarray | None, none: float) -> bool:
    """Whether any cell holds a number, or a [list] of numbers, other than `none`."""
    numbers = [part for cell in set(() if cells is None else cells) for part in cell.strip("[]").split(",")]
    return any(float(number) != none for number in numbers if number)
