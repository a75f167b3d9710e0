"""Ensembles judged: against the truth of simulated images, against unseen images, and against one another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from morphem.errors import InputError, nearest
from morphem.evaluation.checks import CHECKS


@dataclass(frozen=True)
class Validation:
    """Which checks to make, and how thoroughly."""

    checks: tuple[str, ...] = ()
    """Names of the checks to make; by default all."""
    refit: Annotated[bool, Parameter(negative="--no-refit")] = True
    """Fit the method again to halves, with other seeds and to simulated images; without, less can be told."""
    images: int = 20_000
    """Fit again to at most so many images in either half."""
    seeds: int = 3
    """How many seeds to compare."""

    def __post_init__(self) -> None:
        for name in self.checks:
            if name not in CHECKS:
                raise InputError(f"--checks {name}: is not known.{nearest(name, list(CHECKS))}")
        if self.images < 100:
            raise InputError(f"--images {self.images}: expected 100 or more")
        if self.seeds < 2:
            raise InputError(f"--seeds {self.seeds}: expected 2 or more")


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Which methods compete, and what they share."""

    methods: tuple[Literal["variability", "classify", "mixture", "vae", "autodecoder"], ...] = (
        "variability",
        "classify",
        "mixture",
    )
    """The methods that compete, with their default settings."""
    images: int = 20_000
    """At most so many images are competed with; the winner is fitted to all."""
    held_out: float = 0.1
    """Share of these that judges; at most 2,000."""
    radius: float | None = None
    """Largest Fourier radius, in Fourier pixels."""
    mask: Path | None = None
    """Solvent mask (.mrc, 0 to 1)."""

    def __post_init__(self) -> None:
        if not self.methods:
            raise InputError("--methods: none is named; expected at least one")
        if self.images < 100:
            raise InputError(f"--images {self.images}: expected 100 or more")
        if not 0 < self.held_out <= 0.5:
            raise InputError(f"--held-out {self.held_out}: expected a share above 0, up to 0.5")

    def of(self, name: str) -> Any:
        """The settings of one of the methods."""
        shared = {"radius": self.radius, "mask": self.mask}
        from morphem.methods import load

        return load(name).Config(**{key: value for key, value in shared.items() if value is not None})
