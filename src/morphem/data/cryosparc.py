"""cryoSPARC's particle tables: what their fields mean, and how they are written.

Axes: n particles. A pose is a rotation vector of Rᵀ; its shift is in pixels of alignments3D/psize_A.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from morphem.errors import InputError
from morphem.io import cs
from morphem.physics import rotations

POSE, SHIFT, PIXEL_OF_SHIFT = "alignments3D/pose", "alignments3D/shift", "alignments3D/psize_A"
CLASSES = ("alignments3D/class", "alignments2D/class")
CORRECTIONS = ("ctf/shift_A", "ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag")


@dataclass(frozen=True, eq=False)
class CsTable:
    """A cryoSPARC table, its passthrough joined."""

    path: Path
    table: np.ndarray

    POSES: ClassVar = (POSE,)
    PIXEL: ClassVar = "blob/psize_A"
    HALVES: ClassVar = "alignments3D/split"
    NUMBERS: ClassVar = (POSE, SHIFT, PIXEL_OF_SHIFT, PIXEL, "blob/shape", HALVES)
    CTF: ClassVar = {
        "defocus_u_A_n": ("ctf/df1_A", 1.0),
        "defocus_v_A_n": ("ctf/df2_A", 1.0),
        "astigmatism_rad_n": ("ctf/df_angle_rad", 1.0),
        "voltage_kV_n": ("ctf/accel_kv", 1.0),
        "cs_mm_n": ("ctf/cs_mm", 1.0),
        "amplitude_contrast_n": ("ctf/amp_contrast", 1.0),
        "phase_shift_rad_n": ("ctf/phase_shift_rad", 1.0),
        "scale_n": ("ctf/scale", 1.0),
        "b_factor_A2_n": ("ctf/bfactor", 1.0),
    }

    @classmethod
    def read(cls, path: Path, passthrough: Path | str | None = None) -> "CsTable":
        """Errors: InputError where no field names images."""
        table = cls(path, cs.read(path, passthrough))
        missing = [name for name in ("blob/path", "blob/idx") if name not in table.names]
        if missing:
            raise InputError(f"{path}: no field {missing[0]}, expected images; give the passthrough file too")
        return table

    def __len__(self) -> int:
        return len(self.table)

    @property
    def names(self) -> tuple[str, ...]:
        return self.table.dtype.names or ()

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return name in self.names

    def number(self, name: str) -> np.ndarray | None:
        """A field in float64, or None. Errors: InputError at the first row that is not finite."""
        if name not in self.names:
            return None
        numbers = self.table[name].astype(np.float64)
        wrong = np.flatnonzero(~np.isfinite(numbers).reshape(len(self), -1).all(1))
        if len(wrong):
            raise InputError(f"{self.path}: {name} of row {wrong[0] + 1} is not a finite number; repair the table")
        return numbers

    def column(self, name: str) -> np.ndarray | None:
        """A field's texts, or None."""
        return np.array(_texts(self.table[name]), dtype=object) if name in self.names else None

    def images(self) -> tuple[list[str], np.ndarray]:
        """(the stack's name, slice from 0) of each particle."""
        return [path.lstrip(">") for path in _texts(self.table["blob/path"])], self.table["blob/idx"].astype(np.int64)

    def pixel_A_n(self) -> np.ndarray | None:
        return self.number(self.PIXEL)

    def box_n(self) -> np.ndarray | None:
        shape = self.number("blob/shape")
        return None if shape is None else shape.max(1, initial=0)

    def box_columns(self, box: int) -> dict[str, np.ndarray]:
        return {"blob/shape": np.full((len(self), 2), box, dtype=np.uint32)}

    def poses(self, pixel_A_n: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """(rotation_n33, shift_A_n2), or None without poses; an absent shift is 0."""
        pose, shift = self.number(POSE), self.number(SHIFT)
        if pose is None:
            return None
        shift_A = np.zeros((len(self), 2)) if shift is None else shift * self._shift_unit_A(pixel_A_n)
        return rotations.from_cryosparc(pose), shift_A

    def _shift_unit_A(self, pixel_A_n: np.ndarray) -> np.ndarray:
        unit_A_n = self.number(PIXEL_OF_SHIFT)
        return (pixel_A_n if unit_A_n is None else unit_A_n)[:, None]

    def pose_columns(self, rotation_n33: np.ndarray, shift_A_n2: np.ndarray, pixel_A_n: np.ndarray) -> dict:
        """The fields to change for new poses."""
        shift = shift_A_n2 / self._shift_unit_A(pixel_A_n)
        return {POSE: _single(rotations.to_cryosparc(rotation_n33)), SHIFT: _single(shift)}

    def groups(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """(optics group from 0 of each particle, their names) from ctf/exp_group_id."""
        if "ctf/exp_group_id" not in self.names:
            return np.zeros(len(self), dtype=np.int64), ("0",)
        ids, group_n = np.unique(self.table["ctf/exp_group_id"], return_inverse=True)
        return group_n, tuple(str(i) for i in ids)

    def half_n(self) -> np.ndarray | None:
        split = self.number(self.HALVES)
        return None if split is None else split + 1

    def micrograph_n(self) -> np.ndarray | None:
        return self.column("location/micrograph_path")

    def corrections(self) -> list[str]:
        """The fields that ask for a correction of the optics which is not applied here."""
        return [name for name in CORRECTIONS if name in self.names and self.table[name].any()]

    def classes_n(self) -> np.ndarray | None:
        """The class of each particle, or None."""
        return next((self.table[name] for name in CLASSES if name in self.names), None)

    def cells_not_finite(self) -> dict[str, int]:
        """{field: how many of its rows hold nan or inf}, where any does."""
        floats = [name for name in self.names if self.table.dtype[name].base.kind == "f"]
        counts = {name: (~np.isfinite(self.table[name])).reshape(len(self), -1).any(1).sum() for name in floats}
        return {name: int(count) for name, count in counts.items() if count}

    def other_images(self) -> Iterator[str]:
        """Why these are no plain images of single particles: cryoSPARC has no field that tells."""
        return iter(())

    def take(self, index: np.ndarray) -> "CsTable":
        return replace(self, table=self.table[index])

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> "CsTable":
        """The table with fields replaced or appended."""
        fields = {name: np.asarray(values) for name, values in columns.items()}
        return replace(self, table=cs.with_fields(self.table, fields))

    def write(self, path: Path) -> None:
        cs.write(path, self.table)


def _texts(values: np.ndarray) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else text for text in values.tolist()]


def _single(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)
