"""RELION's particle tables (3.0 to 5): what their columns mean, and how they are written.

Axes: n particles. A column is looked for among the particles, then in the row's own optics group.
Shifts: rlnOriginX/YAngst in Å, or rlnOriginX/Y in pixels (3.0).
Pixel: rlnImagePixelSize, or rlnDetectorPixelSize·10⁴/rlnMagnification.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from morphem.errors import InputError
from morphem.io import star
from morphem.physics import rotations

IMAGE_NAME = re.compile(r"0*[1-9]\d*@.+|[^@]+")
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS_A = ("rlnOriginXAngst", "rlnOriginYAngst")
ORIGINS_PX = ("rlnOriginX", "rlnOriginY")
OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
SCALE = ("rlnImagePixelSize", "rlnDetectorPixelSize", "rlnMagnification")
NOT_FINITE = tuple(sign + text for text in ("nan", "NaN", "NAN", "inf", "Inf", "INF") for sign in ("", "-", "+"))
CHANGED = ("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped")
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
    HALVES: ClassVar = "rlnRandomSubset"
    NUMBERS: ClassVar = (*ANGLES, *ORIGINS_A, *ORIGINS_PX, *SCALE, "rlnImageSize", HALVES)
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
        """Errors: InputError where no block names images."""
        blocks = star.read(path)
        names = [name for name in ("particles", "images", *blocks) if "rlnImageName" in blocks.get(name, ())]
        if not names:
            found = ", ".join(f"data_{name}" for name in blocks)
            raise InputError(f"{path}: no column _rlnImageName in {found}; give a STAR file of particle images")
        return cls(path, blocks, names[0])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows(self) -> pd.DataFrame:
        return self.blocks[self.name]

    @cached_property
    def optics_row_n(self) -> np.ndarray:
        """The row of the optics block that each particle belongs to."""
        optics = self.blocks["optics"]
        if "rlnOpticsGroup" not in self.rows or "rlnOpticsGroup" not in optics:
            raise InputError(
                f"{self.path}: no column _rlnOpticsGroup, expected in data_optics and the particles; add it"
            )
        groups = star.texts(optics["rlnOpticsGroup"])
        row_n = pd.Index(groups).get_indexer(pd.Index(star.texts(self.rows["rlnOpticsGroup"])))
        if (row_n < 0).any():
            missing = self.rows["rlnOpticsGroup"].iloc[int(np.argmin(row_n))]
            raise InputError(f"{self.path}: optics group {missing} is not in data_optics ({', '.join(groups)}); add it")
        return row_n

    def has(self, name: str) -> bool:
        """Whether there is such a column, of the particles or of their optics groups."""
        return self._block_with(name) is not None

    def column(self, name: str) -> np.ndarray | None:
        """A column's texts, one per particle, or None."""
        block = self._block_with(name)
        return None if block is None else self._per_particle(block, np.array(star.texts(block[name]), dtype=object))

    def number(self, name: str) -> np.ndarray | None:
        """A column's numbers, float64, or None. Errors: InputError at the first cell that is not a finite number."""
        block = self._block_with(name)
        if block is None:
            return None
        cells = pd.Series(star.texts(block[name]))
        numbers = np.asarray(pd.to_numeric(cells, errors="coerce"), dtype=np.float64)
        wrong = np.flatnonzero(~np.isfinite(numbers))
        if len(wrong):
            where = f'{self.path}: _{name} is "{cells[wrong[0]]}" in row {wrong[0] + 1}'
            raise InputError(f"{where}, expected a number; repair or remove the row")
        return self._per_particle(block, numbers)

    def _block_with(self, name: str) -> pd.DataFrame | None:
        blocks = [self.rows, *(block for key, block in self.blocks.items() if key == "optics")]
        return next((block for block in blocks if name in block), None)

    def _per_particle(self, block: pd.DataFrame, values: np.ndarray) -> np.ndarray:
        return values if block is self.rows else values[self.optics_row_n]

    def images(self) -> tuple[list[str], np.ndarray]:
        """(the stack's name, slice from 0) of each particle: `000001@stack.mrcs` is slice 0."""
        names = star.texts(self.rows["rlnImageName"])
        wrong = next((i for i, name in enumerate(names) if not IMAGE_NAME.fullmatch(name)), None)
        if wrong is not None:
            where = f'{self.path}: the image of row {wrong + 1} is called "{names[wrong]}"'
            raise InputError(f"{where}, expected 000001@stack.mrcs, counted from 1; repair or remove the row")
        parts = [name.partition("@") for name in names]
        slice_n = [int(number) - 1 if at else 0 for number, at, _ in parts]
        return [stack or number for number, _, stack in parts], np.array(slice_n, dtype=np.int64)

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
        angles = [angle for name in ANGLES if (angle := self.number(name)) is not None]
        if len(angles) < len(ANGLES):
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
        present = [name for name in (*OPTICS, *SCALE) if name in self.rows]
        group_n = self.rows.groupby(present, sort=False).ngroup().to_numpy() if present else np.zeros(len(self), int)
        return group_n, tuple(f"opticsGroup{i + 1}" for i in range(group_n.max(initial=0) + 1))

    def half_n(self) -> np.ndarray | None:
        return self.number(self.HALVES)

    def micrograph_n(self) -> np.ndarray | None:
        return self.column("rlnMicrographName")

    def corrections(self) -> list[str]:
        """The columns that ask for a correction of the optics which is not applied here."""
        return [name for name, none in IDENTITY.items() if _differs(self.column(name), none)]

    def classes_n(self) -> np.ndarray | None:
        """The class of each particle, or None."""
        return self.column("rlnClassNumber")

    def cells_not_finite(self) -> dict[str, int]:
        """{column of the particles: how many of its cells say nan or inf}, where any does."""
        counts = self.rows.isin(NOT_FINITE).sum()
        return {str(name): int(count) for name, count in counts.items() if count}

    def take(self, index: np.ndarray) -> "StarTable":
        return self._with_rows(self.rows.iloc[index])

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> "StarTable":
        """The particles with columns replaced or appended."""
        return self._with_rows(self.rows.assign(**{name: star.tokens(values) for name, values in columns.items()}))

    def without_columns(self, names: Collection[str]) -> "StarTable":
        """The particles without those of these columns that there are."""
        return self._with_rows(self.rows.drop(columns=[name for name in names if name in self.rows]))

    def with_changed(self, changes: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> "StarTable":
        """Columns replaced by functions of their numbers, wherever there are such: in the optics groups too."""
        blocks = dict(self.blocks)
        for name in ("optics", self.name):
            for column in set(changes) & set(blocks.get(name, ())):
                self.number(column)
                changed = star.tokens(changes[column](np.array(star.texts(blocks[name][column]), dtype=np.float64)))
                blocks[name] = blocks[name].assign(**{column: changed})
        return replace(self, blocks=blocks)

    def write(self, path: Path) -> None:
        star.write(path, dict(self.blocks))

    def _with_rows(self, rows: pd.DataFrame) -> "StarTable":
        rows.attrs = dict(self.rows.attrs)
        return replace(self, blocks={**self.blocks, self.name: rows})

    def other_images(self) -> Iterator[str]:
        """Why these are no plain images of single particles, a sentence each."""
        for name in CHANGED:
            if _differs(self.column(name), 0):
                yield f"{self.path}: _{name} is set, expected plain images; extract them again without"
        tomo = [name for name in self.rows if name.startswith("rlnTomo")]
        if tomo or self._tilts_differ_within_groups():
            found = f"column _{tomo[0]}" if tomo else "groups whose images differ in dose and tilt"
            yield f"{self.path}: a tilt series ({found}), expected single particles; give untilted images"
        if _differs(self.column("rlnImageDimensionality"), 2):
            yield f"{self.path}: subtomograms (_rlnImageDimensionality), expected images of two dimensions; give those"

    def _tilts_differ_within_groups(self) -> bool:
        """As Warp writes them: B factors follow the dose, scale factors the cosine of the tilt."""
        names = ["rlnCtfBfactor", "rlnCtfScalefactor"]
        if not {"rlnGroupName", *names} <= set(self.rows):
            return False
        values_g = self.rows.groupby("rlnGroupName")[names].nunique().to_numpy()
        return bool((values_g > 1).all(axis=1).any())


def _either(table: pd.DataFrame, first: str, second: str) -> str:
    return first if first in table else second


def _differs(cells: np.ndarray | None, none: float) -> bool:
    """Whether any cell holds a number, or a [list] of numbers, other than `none`."""
    parts = [part for cell in set(() if cells is None else cells) for part in cell.strip("[]").split(",")]
    numbers = np.asarray(pd.to_numeric(pd.Series(parts, dtype=str), errors="coerce"), dtype=np.float64)
    return bool((numbers[~np.isnan(numbers)] != none).any())
