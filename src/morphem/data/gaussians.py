"""Exact images and maps of atoms that are Gaussians: sums in real space, nothing interpolated.

Axes: b images, n atoms, s states, z y x voxels, d box side. Positions are (x, y, z) in pixels from pixel D/2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

REACH = 6.0  # in σ: beyond it a Gaussian is under 2e-8 of its maximum, less than float32 can add


@dataclass(frozen=True, eq=False)
class Gaussians:
    """The atoms of all states end to end; those of state s are `first_s[s]` to `first_s[s + 1]`."""

    position_n3: np.ndarray
    weight_n: np.ndarray
    first_s: np.ndarray
    sigma: float

    @classmethod
    def of(cls, position_sn3: Sequence[np.ndarray], weight_sn: Sequence[np.ndarray], sigma: float) -> "Gaussians":
        """One array of positions (pixels) and one of weights per state."""
        first_s = np.cumsum([0, *map(len, position_sn3)])
        return cls(np.concatenate(position_sn3), np.concatenate(weight_sn), first_s, sigma)

    def project(self, state_b: np.ndarray, rotation_b33: np.ndarray, shift_b2: np.ndarray, box: int) -> np.ndarray:
        """I(y, x) = Σₙ wₙ g(x − cₓ) g(y − c_y), c = D/2 + (R pₙ)ₓᵧ − t, g normal of deviation σ; float32 (b, d, d).

        State −1 is the last one.
        """
        state_b = state_b % (len(self.first_s) - 1)
        image_bdd = np.zeros((len(state_b), box, box), np.float32)
        _project(self.position_n3, self.weight_n, self.first_s, self.sigma, state_b, rotation_b33, shift_b2, image_bdd)
        return image_bdd

    def density(self, state: int, box: int) -> np.ndarray:
        """V(z, y, x) = Σₙ wₙ g(x − cₓ) g(y − c_y) g(z − c_z), c = D/2 + pₙ; float32 (z, y, x). Σ_z V is I at R = 1."""
        own = slice(self.first_s[state], self.first_s[state + 1])
        map_zyx = np.zeros((box, box, box), np.float32)
        _density(self.position_n3[own] + box // 2, self.weight_n[own], self.sigma, map_zyx)
        return map_zyx


@numba.njit(cache=True)
def _line(centre, sigma, value_d):
    """Write the normal density into the pixels within reach of `centre`; return the first and the one past the last."""
    low = max(int(np.ceil(centre - REACH * sigma)), 0)
    high = min(int(np.floor(centre + REACH * sigma)) + 1, len(value_d))
    for i in range(low, high):
        value_d[i] = np.exp(-0.5 * ((i - centre) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
    return low, high


@numba.njit(parallel=True, cache=True)
def _project(position_n3, weight_n, first_s, sigma, state_b, rotation_b33, shift_b2, image_bdd):
    box = image_bdd.shape[1]
    for b in numba.prange(len(state_b)):
        x_d, y_d = np.empty(box, np.float32), np.empty(box, np.float32)
        turn = rotation_b33[b]
        for n in range(first_s[state_b[b]], first_s[state_b[b] + 1]):
            x, y, z = position_n3[n]
            x0, x1 = _line(box // 2 - shift_b2[b, 0] + turn[0, 0] * x + turn[0, 1] * y + turn[0, 2] * z, sigma, x_d)
            y0, y1 = _line(box // 2 - shift_b2[b, 1] + turn[1, 0] * x + turn[1, 1] * y + turn[1, 2] * z, sigma, y_d)
            for i in range(y0, y1):
                weight = np.float32(weight_n[n]) * y_d[i]
                for j in range(x0, x1):
                    image_bdd[b, i, j] += weight * x_d[j]


@numba.njit(cache=True)
def _density(centre_n3, weight_n, sigma, map_zyx):
    box = map_zyx.shape[0]
    x_d, y_d, z_d = np.empty(box, np.float32), np.empty(box, np.float32), np.empty(box, np.float32)
    for n in range(len(centre_n3)):
        x0, x1 = _line(centre_n3[n, 0], sigma, x_d)
        y0, y1 = _line(centre_n3[n, 1], sigma, y_d)
        z0, z1 = _line(centre_n3[n, 2], sigma, z_d)
        for k in range(z0, z1):
            for i in range(y0, y1):
                weight = np.float32(weight_n[n]) * z_d[k] * y_d[i]
                for j in range(x0, x1):
                    map_zyx[k, i, j] += weight * x_d[j]
