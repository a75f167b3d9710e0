"""Pictures of a map: lit surfaces, projections, central sections.

Axes: z y x maps; v u w a map as seen: towards the viewer, up, right. Pictures are (up, right), origin below.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SIDE = 160
"""Voxels per side that surfaces are drawn at."""
LIGHT = np.array([0.78, 0.45, -0.43])
"""Where the light comes from: in front, above, left; towards the viewer, up, right."""
AMBIENT = 0.42
VIEWS = {"x": "y right, z up", "y": "x right, z up", "z": "x right, y up"}


@dataclass(frozen=True, eq=False)
class Picture:
    """A map seen along one axis. All pictures of a series share a crop and a contour level."""

    surface_uw2: np.ndarray
    """Of the lit surface: brightness, and how much of the pixel it covers; 0 to 1."""
    projection_uw: np.ndarray
    section_uw: np.ndarray


@dataclass(frozen=True)
class Camera:
    """How maps are pictured: the half side, in voxels, of the cube kept around the centre, and the contour level."""

    reach: int
    level: float

    @classmethod
    def of(cls, map_zyx: np.ndarray, mask_zyx: np.ndarray | None = None) -> "Camera":
        """All density of the mask above a quarter of the contour level, what moves included, is in the picture."""
        level = contour(map_zyx, mask_zyx)
        inside = map_zyx > level / 4 if mask_zyx is None else (map_zyx > level / 4) & (mask_zyx > 0.5)
        half = len(map_zyx) // 2
        furthest = int(np.abs(np.argwhere(inside) - half).max(initial=half // 2))
        return cls(min(half, furthest + 2), level)

    def seen(self, map_zyx: np.ndarray, axis: str) -> np.ndarray:
        """The kept cube, its first axis towards a viewer who looks along `axis`."""
        half = len(map_zyx) // 2
        kept = slice(half - self.reach, half + self.reach)
        return towards_viewer(map_zyx[kept, kept, kept], axis)

    def picture(self, map_zyx: np.ndarray, axis: str) -> Picture:
        """The map seen along an axis."""
        seen_vuw = self.seen(map_zyx, axis)
        return Picture(lit_surface(seen_vuw, self.level), seen_vuw.sum(0), seen_vuw[self.reach])

    def block(self, map_zyx: np.ndarray, side: int) -> tuple[np.ndarray, float]:
        """The kept cube on `side` voxels per axis as bytes, to be turned in a browser, and the density of one step.

        What is far below the contour level is 0, and so is the rim, so that every surface closes.
        """
        fine_zyx = resized(self.seen(map_zyx, "z"), side)
        step = max(float(fine_zyx.max()), 2 * self.level, 1e-30) / 255
        fine_zyx[fine_zyx < self.level / 4] = 0
        inner = (slice(1, -1),) * 3
        byte_zyx = np.zeros(fine_zyx.shape, np.uint8)
        byte_zyx[inner] = np.round(fine_zyx[inner] / step)
        return byte_zyx, step


def towards_viewer(map_zyx: np.ndarray, axis: str) -> np.ndarray:
    """The map's axes turned, never mirrored, to (towards the viewer, up, right), as `VIEWS` says."""
    turned = {"x": map_zyx.transpose(2, 0, 1), "y": map_zyx.transpose(1, 0, 2)[::-1], "z": map_zyx}
    return turned[axis]


def contour(map_zyx: np.ndarray, mask_zyx: np.ndarray | None = None) -> float:
    """The level that parts density from solvent best: the largest variance between the two (Otsu 1979)."""
    value_v = map_zyx[mask_zyx > 0.5] if mask_zyx is not None and np.any(mask_zyx > 0.5) else map_zyx.ravel()
    count_b, edge_b = np.histogram(value_v, 256)
    centre_b = (edge_b[1:] + edge_b[:-1]) / 2
    below_b, sum_b = np.cumsum(count_b), np.cumsum(count_b * centre_b)
    above_b = below_b[-1] - below_b
    with np.errstate(divide="ignore", invalid="ignore"):
        between_b = below_b * above_b * (sum_b / below_b - (sum_b[-1] - sum_b) / above_b) ** 2
    return float(edge_b[1:][np.nan_to_num(between_b).argmax()])


def lit_surface(seen_vuw: np.ndarray, level: float, side: int = SIDE) -> np.ndarray:
    """Brightness and coverage of the surface at `level`, (up, right, 2).

    Lambert's cosine, fainter with depth, dark where the depth jumps.
    """
    fine_vuw = resized(seen_vuw, side)
    front_uw = _first_crossing(fine_vuw, level)
    lambert_uw = np.clip(_normals(fine_vuw, front_uw) @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    cover_uw = _coverage(fine_vuw.max(0), level)
    depth_uw = np.where(cover_uw > 0, front_uw, -side)
    jump_uw = ndimage.maximum_filter(depth_uw, 3) - depth_uw > 0.05 * side
    edge_uw = ndimage.gaussian_filter(jump_uw.astype(float), 0.6)
    bright_uw = (AMBIENT + (1 - AMBIENT) * lambert_uw) * (0.7 + 0.3 * front_uw / side) * (1 - 0.5 * edge_uw)
    return np.stack([bright_uw, cover_uw], axis=-1)


def _first_crossing(fine_vuw: np.ndarray, level: float) -> np.ndarray:
    """Where the viewer's ray meets the surface, in voxels with a linear fraction; else its densest voxel."""
    inside_vuw = fine_vuw > level
    last = len(fine_vuw) - 1
    index_uw = np.minimum(last - inside_vuw[::-1].argmax(0), last - 1)
    behind_uw, before_uw = (np.take_along_axis(fine_vuw, (index_uw + i)[None], 0)[0] for i in (0, 1))
    fraction_uw = (behind_uw - level) / np.where(behind_uw > before_uw, behind_uw - before_uw, 1)
    return np.where(inside_vuw.any(0), index_uw + np.clip(fraction_uw, 0, 1), fine_vuw.argmax(0))


def _coverage(highest_uw: np.ndarray, level: float) -> np.ndarray:
    """How much of each pixel lies inside the outline, from the distance to it: smooth edges."""
    slope_uw = np.hypot(*np.gradient(highest_uw))
    return np.clip(0.5 + (highest_uw - level) / np.maximum(slope_uw, 1e-12), 0, 1)


def _normals(fine_vuw: np.ndarray, front_uw: np.ndarray) -> np.ndarray:
    """−∇V/|∇V| at the surface, by central differences."""
    up_uw, right_uw = np.indices(front_uw.shape)
    point_3uw = np.stack([front_uw, up_uw, right_uw])

    def value(offset: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(fine_vuw, point_3uw + offset[:, None, None], order=1, mode="nearest")

    slope_uw3 = np.stack([value(step) - value(-step) for step in np.eye(3)], axis=-1)
    return -slope_uw3 / np.maximum(np.linalg.norm(slope_uw3, axis=-1, keepdims=True), 1e-12)


def resized(map_zyx: np.ndarray, side: int) -> np.ndarray:
    """The map on `side` voxels per axis: its transform padded or cropped, the Nyquist planes left out."""
    box = len(map_zyx)
    reach = min(box, side) // 2 - 1
    k = np.arange(-reach, reach + 1)
    fine = np.zeros((side, side, side // 2 + 1), np.complex64)
    fine[np.ix_(k % side, k % side, k[reach:])] = np.fft.rfftn(map_zyx)[np.ix_(k % box, k % box, k[reach:])]
    return np.fft.irfftn(fine, s=(side, side, side), axes=(0, 1, 2)).astype(np.float32) * (side / box) ** 3
