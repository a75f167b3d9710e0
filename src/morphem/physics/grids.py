"""Grids of rotations and shifts that poses are searched on.

Axes: v views, p turns in the image plane, s shifts. x_image = R x_map: the third row of R is the direction of view.
"""

import numpy as np

GOLDEN = np.pi * (1 + 5**0.5)


def step_rad(box: int, radius: float, particle: float) -> float:
    """δ = D / (2 k R): between poses so far apart a particle of radius R pixels differs at Fourier radius k."""
    return 0.5 * box / (radius * particle)


def views_for(step: float) -> tuple[int, int]:
    """How many views 4π/δ² and turns 2π/δ have a spacing of δ; turns are even, so that each has its opposite."""
    return int(np.ceil(4 * np.pi / step**2)), 2 * int(np.ceil(np.pi / step))


def views(count: int) -> np.ndarray:
    """Rotations (v, 3, 3) with directions of view on a spiral: z_i = 1 − (2i + 1)/n, φ_i = π(1 + √5)(i + ½)."""
    i = np.arange(count)
    z, azimuth = 1 - (2 * i + 1) / count, GOLDEN * (i + 0.5)
    ring = np.sqrt(1 - z**2)
    direction_v3 = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=1)
    first_v3 = np.stack([z * np.cos(azimuth), z * np.sin(azimuth), -ring], axis=1)
    return np.stack([first_v3, np.cross(direction_v3, first_v3), direction_v3], axis=1)


def turns(count: int) -> np.ndarray:
    """Rotations (p, 3, 3) about the direction of view by 2πp/count."""
    angle = 2 * np.pi * np.arange(count) / count
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros(count), np.ones(count)
    return np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], axis=1).reshape(-1, 3, 3)


def bank(view_count: int, turn_count: int) -> np.ndarray:
    """All turns of all views, (v, p, 3, 3)."""
    return turns(turn_count) @ views(view_count)[:, None]


def shifts(reach: float, step: float) -> np.ndarray:
    """Shifts (s, 2) of a square grid within a disc, the smallest first."""
    count = int(reach / step + 1e-9)
    line = step * np.arange(-count, count + 1)
    grid_s2 = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    size_s = np.hypot(*grid_s2.T)
    order = np.argsort(size_s, kind="stable")
    return grid_s2[order][size_s[order] <= reach + 1e-9]
