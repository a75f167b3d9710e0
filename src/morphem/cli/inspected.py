"""How an inspection is shown: as tables on a terminal, as aligned text elsewhere, as a line of JSON on request."""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from morphem.data.findings import SEVERITIES, listed
from morphem.data.inspection import Inspection

LABELS = {
    "file": "file",
    "rows": "particles",
    "stacks": "stacks",
    "number_types": "numbers",
    "box": "box, pixels",
    "pixel_A": "pixel, Å",
    "poses": "poses",
    "shift_A": "shifts, Å",
    "shift_px": "shifts, pixels",
    "defocus_A": "defocus, Å",
    "phase_shift_deg": "phase shift, °",
    "half_sets": "half-sets",
    "micrographs": "micrographs",
    "classes": "classes",
    "images_seen": "images looked at",
}
GROUP = {
    "name": "optics group",
    "particles": "particles",
    "pixel_A": "pixel, Å",
    "voltage_kV": "voltage, kV",
    "cs_mm": "Cs, mm",
    "amplitude_contrast": "amplitude contrast",
}


def as_json(inspection: Inspection) -> str:
    """One line."""
    findings = [dataclasses.asdict(finding) for finding in inspection.findings]
    return json.dumps({"holds": inspection.holds, "findings": findings})


def show(inspection: Inspection) -> None:
    """What is held, the optics groups, the findings and how many there are, on stdout."""
    holds = inspection.holds
    _print([[label, _said(holds[name])] for name, label in LABELS.items()])
    if holds["optics_groups"]:
        _print([[_said(group[name]) for name in GROUP] for group in holds["optics_groups"]], list(GROUP.values()))
    _print([[finding.severity, finding.sentence] for finding in inspection.findings])
    counts = Counter(finding.severity for finding in inspection.findings)
    print(", ".join(f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in SEVERITIES))


def _said(value: Any) -> str:
    """A value as people read it."""
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) and set(value) == {"min", "max"}:
        return f"{_said(value['min'])} to {_said(value['max'])}"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')}: {_said(part)}" for name, part in value.items())
    if isinstance(value, list):
        return listed([_said(part) for part in value])
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _print(rows: Sequence[Sequence[str]], head: Sequence[str] | None = None) -> None:
    """A table and a blank line."""
    if not rows:
        return
    if sys.stdout.isatty():
        _print_rich(rows, head)
        return
    lines = [*([head] if head else []), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def _print_rich(rows: Sequence[Sequence[str]], head: Sequence[str] | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    table = Table(*(head or [""] * len(rows[0])), show_header=head is not None, box=box.SIMPLE)
    for row in rows:
        table.add_row(*(Text(cell, colours.get(cell, "")) for cell in row))
    Console().print(table)
