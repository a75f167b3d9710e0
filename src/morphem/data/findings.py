"""What an inspection finds wrong, and how a refusal becomes a finding.

Axes: n particles.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from morphem.errors import InputError

Severity = Literal["error", "warning", "note"]
SEVERITIES = ("error", "warning", "note")
SHOWN = 3
"""How many rows or names are written out."""


@dataclass(frozen=True)
class Finding:
    """Something wrong or worth knowing: what, where, and what to do about it. An error is what a fit refuses."""

    severity: Severity
    what: str
    where: str
    remedy: str

    @classmethod
    def of(cls, refusal: str | InputError, severity: Severity = "error") -> "Finding":
        """From a sentence "where: what; remedy"."""
        where, _, rest = str(refusal).partition(": ")
        what, _, remedy = rest.rpartition("; ")
        return cls(severity, what or remedy, where, remedy if what else "")

    @property
    def sentence(self) -> str:
        """All of it in one."""
        return "; ".join(part for part in (f"{self.where}: {self.what}", self.remedy) if part)


@dataclass
class Findings:
    """Findings in the order in which they come, each once."""

    found: dict[Finding, None] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Finding]:
        """The gravest first."""
        return iter(sorted(self.found, key=lambda finding: SEVERITIES.index(finding.severity)))

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.found)

    def add(self, findings: Iterable[Finding]) -> None:
        """Keep findings; an InputError while they are made is one more."""
        try:
            for finding in findings:
                self.found[finding] = None
        except InputError as error:
            self.found[Finding.of(error)] = None

    def attempt(self, call: Callable[..., Any], *args: Any, otherwise: Any = None) -> Any:
        """What the call returns; where it refuses, its sentence is kept and `otherwise` returned."""
        try:
            return call(*args)
        except InputError as error:
            self.found[Finding.of(error)] = None
            return otherwise


def merged(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings that differ in nothing but where as one."""
    groups: dict[Finding, list[str]] = {}
    for finding in findings:
        groups.setdefault(replace(finding, where=""), []).append(finding.where)
    return (replace(finding, where=listed(wheres)) for finding, wheres in groups.items())


def listed(names: Sequence[str], count: int | None = None) -> str:
    """`a, b, c and 7 more`, of so many names as there are or are said to be."""
    count = len(names) if count is None else count
    more = f" and {count - SHOWN:,} more" if count > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def rows(wrong_n: np.ndarray, number_n: np.ndarray) -> str:
    """`row 7`, `rows 1, 4, 9 and 12 more`, `all rows`: the file's numbers, from 1, of the rows that a mask marks."""
    if wrong_n.all() and len(wrong_n) > 1:
        return "all rows"
    numbers = [str(number + 1) for number in number_n[wrong_n]]
    return f"row{'s' if len(numbers) > 1 else ''} {listed(numbers)}"
