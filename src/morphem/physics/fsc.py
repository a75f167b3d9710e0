"""Fourier shell correlation of two maps, and what is read off it.

    FSC(s) = Re Σ A·conj B / √(Σ|A|² · Σ|B|²), both sums over the shell s − ½ ≤ |k| < s + ½

Axes: z y x maps, f their half transform flattened, s shells 0 … D/2 − 1. Shell s lies at s/(D·pixel) in 1/Å.
Source: S. H. W. Scheres and S. Chen, Nat. Methods 9, 853 (2012); phase randomisation: S. Chen et al.,
Ultramicroscopy 135, 24 (2013).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from morphem.errors import InputError
from morphem.io import star

GOLD = 0.143
"""The threshold between half maps; against the truth it is 0.5."""
RANDOMISE_BELOW = 0.8
"""Phases are randomised from the first shell whose unmasked FSC is below this."""
MASK_REACH = 2
"""Shells next to the first randomised one into which a mask still carries true signal: they are not corrected."""


def fsc(map1_zyx: np.ndarray, map2_zyx: np.ndarray) -> np.ndarray:
    """FSC(s) of shells 0 … D/2 − 1."""
    return shell_correlation(map1_zyx, map2_zyx, 0.5)


def shell_correlation(map1_zyx: np.ndarray, map2_zyx: np.ndarray, offset: float) -> np.ndarray:
    """Correlation in the D/2 shells that hold ⌊|k| + offset⌋ = s; 0/0 = 0: an empty shell shows nothing.

    Errors: InputError where the maps are not cubes of one even side.
    """
    _check(map1_zyx, map2_zyx)
    shell_f, weight_f = _half_shells(len(map1_zyx), offset)
    a_f, b_f = (np.fft.rfftn(m.astype(np.float32)).ravel() for m in (map1_zyx, map2_zyx))

    def total_s(value_f: np.ndarray) -> np.ndarray:
        return np.bincount(shell_f, weight_f * value_f)[: len(map1_zyx) // 2]

    cross_s = total_s(a_f.real * b_f.real + a_f.imag * b_f.imag)
    power_s = total_s(a_f.real**2 + a_f.imag**2) * total_s(b_f.real**2 + b_f.imag**2)
    return np.divide(cross_s, np.sqrt(power_s), out=np.zeros_like(cross_s), where=power_s > 0)


def resolution(fsc_s: np.ndarray, pixel_A: float, threshold: float) -> float | None:
    """D·pixel/s* in Å, s* the first downward crossing of `threshold`, interpolated linearly; None: none, "Nyquist".

    FSC(0) counts as 1: a curve that starts below the threshold crosses before shell 1, at more than the box.
    """
    curve_s = np.concatenate([[1.0], fsc_s[1:]])
    below = np.flatnonzero((curve_s[:-1] >= threshold) & (curve_s[1:] < threshold))
    if not len(below):
        return None
    s = below[0]
    crossing = s + (curve_s[s] - threshold) / (curve_s[s] - curve_s[s + 1])
    return float(2 * len(fsc_s) * pixel_A / crossing)


@dataclass(frozen=True, eq=False)
class HalfMapFsc:
    """The curves of two half maps, one number per shell."""

    pixel_A: float
    unmasked_s: np.ndarray
    masked_s: np.ndarray
    randomised_s: np.ndarray
    """Of the masked maps after their phases were randomised: what the mask alone contributes."""
    corrected_s: np.ndarray
    """(masked − randomised)/(1 − randomised) where phases are random, masked below."""
    randomised_from: int | None
    """First shell with random phases; None where the unmasked FSC never falls below 0.8."""

    @property
    def frequency_s(self) -> np.ndarray:
        """s/(D·pixel) in 1/Å."""
        return np.arange(len(self.corrected_s)) / (2 * len(self.corrected_s) * self.pixel_A)

    @cached_property
    def resolution_A(self) -> float | None:
        """Where the corrected curve crosses 0.143; None: Nyquist."""
        return resolution(self.corrected_s, self.pixel_A, GOLD)

    @property
    def summary(self) -> str:
        """The resolution in words."""
        text = f"{self.resolution_A:.2f} Å" if self.resolution_A else "Nyquist"
        return f"Resolution {text} (FSC = 0.143, half-sets of one refinement's poses: not gold standard)"


def half_map_fsc(
    half1_zyx: np.ndarray, half2_zyx: np.ndarray, mask_zyx: np.ndarray, pixel_A: float, seed: int = 0
) -> HalfMapFsc:
    """FSC of half maps, with and without a mask, corrected for the mask by phase randomisation.

    FSC_true = (FSC_masked − FSC_random)/(1 − FSC_random), from two shells beyond the first randomised one.
    """
    unmasked_s = fsc(half1_zyx, half2_zyx)
    masked_s = fsc(half1_zyx * mask_zyx, half2_zyx * mask_zyx)
    low = np.flatnonzero(unmasked_s[1:] < RANDOMISE_BELOW)
    if not len(low):
        return HalfMapFsc(pixel_A, unmasked_s, masked_s, np.zeros_like(masked_s), masked_s, None)
    first = int(low[0]) + 1
    rng = np.random.default_rng(seed)
    randomised_s = fsc(*(mask_zyx * randomise_phases(half, first, rng) for half in (half1_zyx, half2_zyx)))
    corrected_s = np.where(
        np.arange(len(masked_s)) < first + MASK_REACH,
        masked_s,
        (masked_s - randomised_s) / np.maximum(1 - randomised_s, 1e-6),
    )
    return HalfMapFsc(pixel_A, unmasked_s, masked_s, randomised_s, corrected_s, first)


def randomise_phases(map_zyx: np.ndarray, first: int, rng: np.random.Generator) -> np.ndarray:
    """The map with |F| kept and, from shell `first`, the phases of real white noise (so that F(−k) = conj F(k))."""
    spectrum_f = np.fft.rfftn(map_zyx.astype(np.float32))
    noise_f = np.fft.rfftn(rng.standard_normal(map_zyx.shape, np.float32))
    shell_f = _half_shells(len(map_zyx), 0.5)[0].reshape(spectrum_f.shape)
    random_f = np.abs(spectrum_f) * np.exp(1j * np.angle(noise_f))
    mixed_f = np.where(shell_f < first, spectrum_f, random_f)
    return np.fft.irfftn(mixed_f, s=map_zyx.shape, axes=(0, 1, 2)).astype(np.float32)


CURVES = {
    "rlnFourierShellCorrelationCorrected": "corrected_s",
    "rlnFourierShellCorrelationUnmaskedMaps": "unmasked_s",
    "rlnFourierShellCorrelationMaskedMaps": "masked_s",
    "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": "randomised_s",
}
"""RELION's columns and ours."""


def write_fsc_star(path: Path | str, curves: HalfMapFsc) -> None:
    """RELION's FSC table: `data_general` with the resolution, `data_fsc` with one row per shell."""
    frequency_s = curves.frequency_s
    general = {"rlnFinalResolution": curves.resolution_A or 2 * curves.pixel_A, "rlnPixelSize": curves.pixel_A}
    if curves.randomised_from is not None:
        general["rlnRandomiseFrom"] = 1 / frequency_s[curves.randomised_from]
    single = pd.DataFrame({name: star.tokens([value]) for name, value in general.items()})
    single.attrs["loop"] = False
    angstrom_s = np.divide(1, frequency_s, out=np.full_like(frequency_s, 999.0), where=frequency_s > 0)
    columns = {
        "rlnSpectralIndex": np.arange(len(frequency_s)),
        "rlnResolution": frequency_s,
        "rlnAngstromResolution": angstrom_s,
        **{name: getattr(curves, curve) for name, curve in CURVES.items()},
    }
    table = pd.DataFrame({name: star.tokens(np.round(values, 6)) for name, values in columns.items()})
    star.write(path, {"general": single, "fsc": table})


def read_fsc_star(path: Path | str) -> HalfMapFsc:
    """What `write_fsc_star` wrote. Errors: InputError where the file holds no such table."""
    blocks = star.read(path)
    try:
        general, table = blocks["general"], blocks["fsc"]
        curves = {curve: table[name].astype(float).to_numpy() for name, curve in CURVES.items()}
        pixel_A = float(general["rlnPixelSize"].iloc[0])
        from_A = float(general["rlnRandomiseFrom"].iloc[0]) if "rlnRandomiseFrom" in general else None
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: holds no FSC of half maps ({error}); give a file that this program wrote") from error
    first = None if from_A is None else round(2 * len(table) * pixel_A / from_A)
    return HalfMapFsc(pixel_A, **curves, randomised_from=first)


@lru_cache(maxsize=4)
def _half_shells(box: int, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Of every sample of an `rfftn`: its shell ⌊|k| + offset⌋, and 2 where its mate −k is left out, else 1."""
    k = np.fft.fftfreq(box, 1 / box)
    kx = np.arange(box // 2 + 1)
    shell_zyx = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + kx**2) + offset).astype(np.int32)
    weight_zyx = np.broadcast_to(np.where((kx == 0) | (kx == box // 2), 1.0, 2.0), shell_zyx.shape)
    return shell_zyx.ravel(), weight_zyx.ravel()


def _check(map1_zyx: np.ndarray, map2_zyx: np.ndarray) -> None:
    side = len(map1_zyx)
    if map1_zyx.shape != map2_zyx.shape or map1_zyx.shape != (side,) * 3 or side % 2:
        raise InputError(f"FSC: maps of {map1_zyx.shape} and {map2_zyx.shape} voxels, expected cubes of one even side")
