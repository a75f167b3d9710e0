"""What a set of particles holds, and everything about it that a fit would refuse or a user should know.

Axes: n particles, g optics groups.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from morphem.data import contrast, stack_checks, table_checks, tables
from morphem.data.dataset import Source
from morphem.data.evidence import Evidence, gather
from morphem.data.findings import Finding, Findings
from morphem.data.images import Images
from morphem.errors import InputError

SAMPLE = 1000
"""Images that are looked at, unless all are."""


@dataclass(frozen=True)
class Inspection:
    """What a set holds (None where that could not be read), and what was found, the gravest first."""

    holds: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many findings a fit would refuse."""
        return sum(finding.severity == "error" for finding in self.findings)


def inspect(source: Source, all_images: bool = False) -> Inspection:
    """Look at the table, at its stacks, and at up to `SAMPLE` images spread over them, or at all.

    Errors: InputError where there is no table to look at.
    """
    findings = Findings()
    evidence = gather(source, None if all_images else SAMPLE, findings)
    for check in (*stack_checks.CHECKS, *table_checks.CHECKS):
        findings.add(_findings_of(check, evidence))
    if not findings.errors:
        findings.attempt(lambda: Images(source.open(), source.contrast))
    return Inspection({name: _or_none(look, evidence) for name, look in HOLDS.items()}, tuple(findings))


def _findings_of(check: Callable[[Evidence], Iterator[Finding]], evidence: Evidence) -> Iterator[Finding]:
    """Those of one check, begun only when they are asked for."""
    yield from check(evidence)


def _or_none(look: Callable[[Evidence], Any], evidence: Evidence) -> Any:
    try:
        return look(evidence)
    except InputError:
        return None


def _stacks(e: Evidence) -> dict[str, int]:
    used = [e.stacks[i] for i in np.flatnonzero(e.last_s >= 0)]
    return {"named": len(used), "found": sum(path.exists() for path in used)}


def _number_types(e: Evidence) -> list[str]:
    return sorted({header.number_type for header in e.headers.values()})


def _range(value_n: np.ndarray | None) -> dict[str, float] | None:
    if value_n is None or not value_n.size:
        return None
    return {"min": _rounded(value_n.min()), "max": _rounded(value_n.max())}


def _rounded(value: float) -> float:
    """To the six digits that float32 has."""
    return float(f"{value:.6g}")


def _defocus_A(e: Evidence) -> dict[str, float] | None:
    both = [e.table.number(e.table.CTF[field][0]) for field in ("defocus_u_A_n", "defocus_v_A_n")]
    return _range(np.concatenate([one for one in both if one is not None] or [np.empty(0)]))


def _phase_shift_deg(e: Evidence) -> dict[str, float] | None:
    name, unit = e.table.CTF["phase_shift_rad_n"]
    phase_n = e.table.number(name)
    return _range(None if phase_n is None else np.degrees(phase_n * unit))


def _shifts(e: Evidence) -> tuple[np.ndarray, np.ndarray]:
    pixel_A_n = tables.pixel_A_of(e.table)
    return tables.poses_of(e.table, pixel_A_n, require=True)[1], pixel_A_n[:, None]


def _shift_A(e: Evidence) -> dict[str, float] | None:
    return _range(_shifts(e)[0])


def _shift_px(e: Evidence) -> dict[str, float] | None:
    shift_A_n2, pixel_A_n1 = _shifts(e)
    return _range(shift_A_n2 / pixel_A_n1)


def _half_sets(e: Evidence) -> dict[str, int] | None:
    counts = Counter(tables.halves_of(e.table).tolist())
    return {str(half): counts[half] for half in sorted(counts)} if set(counts) != {0} else None


def _distinct(value_n: np.ndarray | None) -> int | None:
    return None if value_n is None else len(pd.unique(pd.Series(value_n)))


def _contrast(e: Evidence) -> dict[str, Any] | None:
    if e.sample is None:
        return None
    t = e.sample.certainty
    return {"images": len(e.sample.row_m), "particles": contrast.seen(t), "standard_errors": round(t, 1)}


def _optics_groups(e: Evidence) -> list[dict[str, Any]]:
    """Name, particles, and what is equal within the group; a range where it is not."""
    group_n, names = e.table.groups()
    columns = {"pixel_A": e.table.pixel_A_n()}
    for field in ("voltage_kV_n", "cs_mm_n", "amplitude_contrast_n"):
        columns[field.removesuffix("_n")] = e.table.number(e.table.CTF[field][0])
    return [
        {"name": names[group], "particles": int((group_n == group).sum())}
        | {
            key: _one_or_range(None if value_n is None else value_n[group_n == group])
            for key, value_n in columns.items()
        }
        for group in range(len(names))
    ]


def _one_or_range(value_n: np.ndarray | None) -> float | dict[str, float] | None:
    span = _range(value_n)
    return span["min"] if span and span["min"] == span["max"] else span


HOLDS: dict[str, Callable[[Evidence], Any]] = {
    "file": lambda e: str(e.table.path),
    "rows": len,
    "stacks": _stacks,
    "number_types": _number_types,
    "box": lambda e: tables.box_of(e.table),
    "pixel_A": lambda e: [_rounded(pixel_A) for pixel_A in np.unique(tables.pixel_A_of(e.table))],
    "poses": lambda e: all(e.table.has(name) for name in e.table.POSES),
    "shift_A": _shift_A,
    "shift_px": _shift_px,
    "defocus_A": _defocus_A,
    "phase_shift_deg": _phase_shift_deg,
    "half_sets": _half_sets,
    "micrographs": lambda e: _distinct(e.table.micrograph_n()),
    "classes": lambda e: _distinct(e.table.classes_n()),
    "images_seen": _contrast,
    "optics_groups": _optics_groups,
}
