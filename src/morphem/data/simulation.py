"""What a simulation is asked for, and what is drawn for its images.

Axes: n images, s states. Angles, signs and units are those of the tables: Å, radians, kV; shifts in pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from morphem.data.molecules import PARTS, STATES
from morphem.errors import InputError
from morphem.physics import rotations
from morphem.physics.ctf import CtfParameters

VOLTAGE_KV, CS_MM, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.1
ASTIGMATISM_A = 800.0


@dataclass(frozen=True)
class Simulation:
    """What to simulate; refused as an InputError where it makes no sense."""

    kind: Literal["hinge", "linker", "assembly", "molecules", "still"] = "hinge"
    """The heterogeneity: a turning arm, a tethered arm, parts that come and go, unrelated molecules, or none."""
    atoms: tuple[Path, ...] = ()
    """PDB or mmCIF files to image instead, a state per model; weights are atomic numbers, waters are left out."""
    images: int = 5000
    """How many particles."""
    box: int = 64
    """Side of an image in pixels, even."""
    pixel_size: float = 3.0
    """Side of a pixel in Å."""
    snr: float = 0.1
    """Variance of all noise-free, CTF-modulated images over the variance of the noise; inf for no noise."""
    seed: int = 0
    """Of poses, CTFs, noise and all else but the molecule."""
    molecule_seed: int = 0
    """Of the molecule, so that one molecule can be imaged many times."""
    states: int | None = None
    """How many states of a hinge (default 50), a linker (100) or molecules (10)."""
    parts: int = 4
    """How many parts of an assembly come and go, 1 to 4."""
    equal_populations: bool = False
    """Give all states of an assembly the same share instead of 1/rank."""
    view_preference: float = 0.0
    """ν of the density exp(ν cos θ) of viewing directions; 0 is uniform."""
    shift: float = 0.04
    """Largest shift along x and y, as a fraction of the box."""
    ctf: bool = True
    """Modulate by a CTF; without it the table has no CTF columns."""
    defocus: tuple[float, float] = (8000.0, 25000.0)
    """Range of the defocus U in Å, underfocus positive."""
    noise: Literal["white", "coloured"] = "white"
    """Coloured noise has ten times more power at the origin than at high frequency, one spectrum for all images."""
    contrast_spread: float = 0.0
    """Standard deviation of the contrast of an image about 1."""
    rotation_error: float = 0.0
    """Root-mean-square error of the tabulated rotations in degrees."""
    shift_error: float = 0.0
    """Standard deviation of the error of the tabulated shifts along x and y in pixels."""
    defocus_error: float = 0.0
    """Standard deviation of the error of the tabulated defoci in Å."""
    junk: float = 0.0
    """Fraction of images that do not show the molecule."""
    junk_kind: Literal["noise", "molecule"] = "noise"
    """What junk shows: nothing, or one other molecule."""

    def __post_init__(self):
        for fine, complaint in self._demands():
            if not fine:
                raise InputError(complaint)

    def _demands(self) -> Iterator[tuple[bool, str]]:
        """What must hold, and what is said where it does not."""
        low, high = self.defocus
        counted = self.kind in STATES and not self.atoms
        yield self.images >= 1, f"--images {self.images}: expected at least 1"
        yield self.box >= 16 and self.box % 2 == 0, f"--box {self.box}: expected an even number, 16 or more"
        yield 0 < self.pixel_size < np.inf, f"--pixel-size {self.pixel_size}: expected a positive number of Å"
        yield self.snr > 0, f"--snr {self.snr}: expected a positive number; inf leaves the noise out"
        yield min(self.seed, self.molecule_seed) >= 0, "--seed and --molecule-seed: expected 0 or more"
        yield (
            self.states is None or counted,
            f"--states {self.states}: only hinge, linker and molecules take a number; leave it out",
        )
        yield self.states is None or self.states >= 1, f"--states {self.states}: expected at least 1"
        yield 1 <= self.parts <= len(PARTS), f"--parts {self.parts}: expected 1 to {len(PARTS)}"
        yield 0 <= self.view_preference < np.inf, f"--view-preference {self.view_preference}: expected 0 or more"
        yield 0 <= self.shift < 0.5, f"--shift {self.shift}: expected a fraction of the box from 0 to 0.5"
        yield 0 < low <= high < np.inf, f"--defocus {low:g} {high:g}: expected two positive numbers of Å in order"
        yield 0 <= self.contrast_spread < np.inf, f"--contrast-spread {self.contrast_spread}: expected 0 or more"
        yield 0 <= self.rotation_error < np.inf, f"--rotation-error {self.rotation_error}: expected 0 or more degrees"
        yield 0 <= self.shift_error < np.inf, f"--shift-error {self.shift_error}: expected 0 or more pixels"
        yield 0 <= self.defocus_error < np.inf, f"--defocus-error {self.defocus_error}: expected 0 or more Å"
        yield 0 <= self.junk < 1, f"--junk {self.junk}: expected a fraction from 0 to less than 1"

    def random(self, stream: str, *index: int) -> np.random.Generator:
        """Random numbers for one purpose, so that no option changes what another one draws."""
        return np.random.default_rng([self.seed, *stream.encode(), *index])


@dataclass(frozen=True, eq=False)
class Truth:
    """What is true of every image. The particle's centre lies at D/2 − t, t in pixels."""

    state_n: np.ndarray
    """−1 for junk."""
    rotation_n33: np.ndarray
    shift_n2: np.ndarray
    contrast_n: np.ndarray
    ctf: CtfParameters | None


def draw(config: Simulation, states: int) -> Truth:
    """State, pose, contrast and CTF of every image."""
    count, reach = config.images, config.shift * config.box
    return Truth(
        state_n=_draw_states(config, states),
        rotation_n33=_draw_rotations(config),
        shift_n2=config.random("shift").uniform(-reach, reach, (count, 2)),
        contrast_n=config.random("contrast").normal(1, config.contrast_spread, count),
        ctf=_draw_ctfs(config) if config.ctf else None,
    )


def _draw_states(config: Simulation, states: int) -> np.ndarray:
    """State s in a share of 1/(s + 1) for an assembly, else in equal shares, to within one image; shuffled."""
    junk = round(config.junk * config.images)
    uneven = config.kind == "assembly" and not config.equal_populations
    share_s = 1 / np.arange(1, states + 1) if uneven else np.ones(states)
    edge_s = np.round(np.cumsum(share_s) / share_s.sum() * (config.images - junk)).astype(int)
    state_n = np.repeat(np.arange(-1, states), np.diff(edge_s, prepend=[-junk, 0]))
    return config.random("state").permutation(state_n)


def _draw_rotations(config: Simulation) -> np.ndarray:
    """Views of density ∝ exp(ν cos θ): cos θ = 1 + log(u + (1 − u) exp(−2ν)) / ν with u uniform on [0, 1]."""
    u_3n, nu = config.random("rotation").uniform(size=(3, config.images)), config.view_preference
    cosine_n = 1 + np.log(u_3n[1] + (1 - u_3n[1]) * np.exp(-2 * nu)) / nu if nu else 2 * u_3n[1] - 1
    tilt_n = np.degrees(np.arccos(np.clip(cosine_n, -1, 1)))
    return rotations.from_relion(np.stack([360 * u_3n[0], tilt_n, 360 * u_3n[2]], axis=1))


def _draw_ctfs(config: Simulation) -> CtfParameters:
    rng, count = config.random("ctf"), config.images
    defocus_u_A_n = rng.uniform(*config.defocus, count)
    return CtfParameters(
        defocus_u_A_n=defocus_u_A_n,
        defocus_v_A_n=defocus_u_A_n - rng.uniform(0, ASTIGMATISM_A, count),
        astigmatism_rad_n=rng.uniform(0, np.pi, count),
        voltage_kV_n=np.full(count, VOLTAGE_KV),
        cs_mm_n=np.full(count, CS_MM),
        amplitude_contrast_n=np.full(count, AMPLITUDE_CONTRAST),
        phase_shift_rad_n=np.zeros(count),
        scale_n=np.ones(count),
        b_factor_A2_n=np.zeros(count),
    )


def tabulated_poses(config: Simulation, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """What the table gives, errors included: (exp([ω]×) R, t + normal), ω normal with √E|ω|² the rotation error."""
    rng, deviation_rad = config.random("error"), np.radians(config.rotation_error) / np.sqrt(3)
    turn_n33 = rotations.about(rng.normal(0, deviation_rad, (config.images, 3)))
    return turn_n33 @ truth.rotation_n33, truth.shift_n2 + rng.normal(0, config.shift_error, (config.images, 2))


def tabulated_ctf(config: Simulation, truth: Truth) -> CtfParameters | None:
    """What the table gives: the defoci U and V of an image share their error."""
    if truth.ctf is None or not config.defocus_error:
        return truth.ctf
    return truth.ctf.at_defocus(config.random("defocus").normal(0, config.defocus_error, config.images))
