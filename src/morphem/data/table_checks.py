"""What can be wrong with a table of particles: each check yields findings, or stops at an InputError, which is one too.

Axes: n particles. Limits are in the units of `CtfParameters`: Å, radians, kV, mm.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from morphem.data import tables
from morphem.data.evidence import Evidence
from morphem.data.findings import Finding, listed, rows
from morphem.data.relion import ORIGINS_A, ORIGINS_PX, StarTable


class Limits(NamedTuple):
    """Where the numbers of a column are expected to lie, and what is wrong if they do not."""

    low: float
    high: float
    remedy: str


UNIT = "check the unit: "
RANGES = {
    "defocus_u_A_n": Limits(500, 1e5, f"{UNIT}expected Å, underfocus positive"),
    "defocus_v_A_n": Limits(500, 1e5, f"{UNIT}expected Å, underfocus positive"),
    "astigmatism_rad_n": Limits(-2 * np.pi, 2 * np.pi, f"{UNIT}expected degrees in a .star, radians in a .cs"),
    "voltage_kV_n": Limits(60, 1000, f"{UNIT}expected kV"),
    "cs_mm_n": Limits(-1, 10, f"{UNIT}expected mm"),
    "amplitude_contrast_n": Limits(0, 1, "expected a fraction, such as 0.1 for 10 %"),
    "scale_n": Limits(0, 10, "expected about 1"),
    "b_factor_A2_n": Limits(-1e4, 1e4, f"{UNIT}expected Å²"),
    "phase_shift_rad_n": Limits(-2 * np.pi, 2 * np.pi, f"{UNIT}expected degrees in a .star, radians in a .cs"),
}


def kind(e: Evidence) -> Iterator[Finding]:
    """Tilt series, premultiplied and phase-flipped images."""
    return (Finding.of(sentence) for sentence in e.table.other_images())


def few(e: Evidence) -> Iterator[Finding]:
    """Too few rows for two half-sets."""
    if len(e) < 2:
        yield Finding("error", f"holds {len(e)} image", str(e.table.path), "two half-sets need at least 2")


def box(e: Evidence) -> Iterator[Finding]:
    """No box, several, or an odd one that no stack could contradict."""
    side = tables.box_of(e.table)
    if side % 2 and not e.headers:
        yield Finding("error", f"an odd image box of {side} pixels", str(e.table.path), "crop or pad it by one")


def pixel(e: Evidence) -> Iterator[Finding]:
    """No pixel size, or several."""
    sizes = np.unique(tables.pixel_A_of(e.table))
    if len(sizes) > 1:
        what = f"{len(sizes)} pixel sizes, {sizes[0]:.4g} to {sizes[-1]:.4g} Å"
        yield Finding("note", what, e.table.PIXEL, "each image is read with its own; maps have the commonest")


def groups(e: Evidence) -> Iterator[Finding]:
    """Optics groups that rows name but the table lacks, or the other way round."""
    group_n, names = e.table.groups()
    unused = sorted(set(names) - {names[group] for group in np.unique(group_n)})
    if unused:
        remedy = "nothing to do unless particles are missing"
        yield Finding("note", "optics group without particles", listed(unused), remedy)


def ctf(e: Evidence) -> Iterator[Finding]:
    """Columns of the CTF that are absent."""
    if e.has_ctf:
        tables.refuse_absent_ctf(e.table)
        remedy = "nothing to do unless a phase plate was used"
        yield from (Finding("note", notice, str(e.table.path), remedy) for notice in tables.taken_as_0(e.table))


def in_range(field: str, e: Evidence) -> Iterator[Finding]:
    """Numbers of a CTF column that are out of range, as those in a wrong unit are."""
    name, unit = e.table.CTF[field]
    value_n = e.table.number(name) if e.has_ctf else None
    if value_n is None:
        return
    limits = RANGES[field]
    low, high = limits.low / unit, limits.high / unit
    slack = 1e-6 * (high - low)
    wrong_n = (value_n < low - slack) | (value_n > high + slack)
    if wrong_n.any():
        found = value_n[wrong_n]
        span = f"{found.min():g}" if found.min() == found.max() else f"{found.min():g} to {found.max():g}"
        what = f"{span} found, expected {low:g} to {high:g}"
        yield Finding("warning", what, f"{name}, {rows(wrong_n, e.number_n)}", limits.remedy)


def angle(e: Evidence) -> Iterator[Finding]:
    """Angles of astigmatism that look like radians where degrees are expected."""
    name, unit = e.table.CTF["astigmatism_rad_n"]
    value_n = e.table.number(name) if e.has_ctf else None
    if value_n is not None and unit != 1 and len(np.unique(value_n)) >= 20 and np.abs(value_n).max() <= 2 * np.pi:
        what = f"{len(np.unique(value_n)):,} angles, none above 2π degrees"
        yield Finding("warning", what, f"{name}, all rows", f"{UNIT}expected degrees")


def poses(e: Evidence) -> Iterator[Finding]:
    """No poses, or such as no refinement gave."""
    rotation_n33, _ = tables.poses_of(e.table, np.ones(len(e)), require=True)
    if len(e) > 1 and np.ptp(rotation_n33, axis=0).max() < 1e-6:
        angles = "zero" if np.allclose(rotation_n33[0], np.eye(3), atol=1e-6) else "equal"
        yield Finding("warning", f"all rotations are {angles}", ", ".join(e.table.POSES), "refine the poses first")


def shifts(e: Evidence) -> Iterator[Finding]:
    """Shifts beyond half the box, as those in a wrong unit are."""
    pixel_A_n = tables.pixel_A_of(e.table)
    _, shift_A_n2 = tables.poses_of(e.table, pixel_A_n, require=False)
    side = tables.box_of(e.table)
    length_n = np.abs(shift_A_n2 / pixel_A_n[:, None]).max(1)
    wrong_n = length_n > side / 2
    if wrong_n.any():
        what = f"shifts of up to {length_n.max():.4g} pixels, more than half the box of {side}"
        remedy = f"{UNIT}rlnOriginX/YAngst are Å, rlnOriginX/Y and alignments3D/shift pixels, those of a pose.pkl boxes"
        yield Finding("warning", what, rows(wrong_n, e.number_n), remedy)


def origins(e: Evidence) -> Iterator[Finding]:
    """Origins in pixels that disagree with those in Å."""
    if not isinstance(e.table, StarTable):
        return
    for in_A, in_px in zip(ORIGINS_A, ORIGINS_PX, strict=True):
        shift_A_n, shift_px_n = e.table.number(in_A), e.table.number(in_px)
        if shift_A_n is None or shift_px_n is None:
            continue
        wrong_n = np.abs(shift_A_n / tables.pixel_A_of(e.table) - shift_px_n) > 0.1
        if wrong_n.any():
            what = f"{in_px} in pixels disagrees with {in_A} in Å, which is used"
            yield Finding("warning", what, rows(wrong_n, e.number_n), f"remove {in_px} if it is older")


def not_applied(e: Evidence) -> Iterator[Finding]:
    """Corrections of the optics that this program does not make."""
    for notice in tables.not_applied(e.table):
        yield Finding("warning", notice, str(e.table.path), "expect less at high resolution, or bake them in first")


def halves(e: Evidence) -> Iterator[Finding]:
    """Half-sets that are absent or incomplete."""
    half_n = tables.halves_of(e.table)
    remedy = "half-sets are drawn anew, so half-maps are not independent of the poses"
    if not half_n.any():
        yield Finding("note", f"no half-sets ({e.table.HALVES})", str(e.table.path), remedy)
    elif set(np.unique(half_n)) != {1, 2}:
        counts = [f"{(half_n == half).sum():,} rows in {name}" for half, name in enumerate(("none", "1", "2"))]
        yield Finding("warning", f"{', '.join(counts)}, expected all in half-set 1 or 2", e.table.HALVES, remedy)


def classes(e: Evidence) -> Iterator[Finding]:
    """Particles of several classes."""
    distinct = pd.unique(pd.Series(e.table.classes_n()).dropna())
    if len(distinct) > 1:
        what = f"{len(distinct)} classes ({listed([str(name) for name in distinct])})"
        yield Finding("note", what, str(e.table.path), "all are read; select rows with --ind to leave some out")


def other_cells(e: Evidence) -> Iterator[Finding]:
    """Cells that are no finite numbers, in columns that nobody here reads."""
    read = {*e.table.NUMBERS, *(name for name, _ in e.table.CTF.values())}
    counts = {name: count for name, count in e.table.cells_not_finite().items() if name not in read}
    if counts:
        what = f"cells that are not finite ({sum(counts.values()):,} in all)"
        yield Finding(
            "note", what, listed(list(counts)), "these columns are not read here, but other programs may stop"
        )


CHECKS = (
    kind, few, box, pixel, ctf, *(partial(in_range, field) for field in RANGES), angle, poses, shifts, origins,
    groups, not_applied, halves, classes, other_cells,
)  # fmt: skip
