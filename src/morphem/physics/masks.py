"""Soft masks in real space. Axes: z y x."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from morphem.errors import InputError
from morphem.io.mrc import read_map


def read(path: Path, box: int, pixel_A: float) -> np.ndarray:
    """A mask of that box and pixel size. Errors: InputError for another size, an empty one, or values beyond 0 to 1."""
    mask_zyx, found_A = read_map(path)
    if mask_zyx.shape != (box,) * 3 or (found_A > 0 and abs(found_A / pixel_A - 1) > 0.01):
        side = " × ".join(map(str, mask_zyx.shape))
        raise InputError(f"{path}: {side} voxels of {found_A:g} Å, expected {box}³ of {pixel_A:g} Å; make it anew")
    if not (mask_zyx.min() >= -1e-3 and 0.5 <= mask_zyx.max() <= 1.001):
        raise InputError(f"{path}: values from {mask_zyx.min():g} to {mask_zyx.max():g}, expected a mask of 0 to 1")
    return np.clip(mask_zyx, 0, 1)


def sphere(box: int, radius: float, edge: float = 3.0) -> np.ndarray:
    """1 within `radius` voxels of voxel box/2, a cosine edge of `edge` voxels; edge 0 is a hard ball."""
    x = np.arange(box) - box // 2
    distance = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
    return _soft(distance - radius, edge)


def around(map_zyx: np.ndarray, blur: float = 3.0, threshold: float = 0.02, edge: float = 3.0) -> np.ndarray:
    """A soft mask around a map: above `threshold` of the maximum after a Gaussian blur, soft edge, in voxels."""
    blurred = ndimage.gaussian_filter(map_zyx.astype(np.float32), blur)
    inside = blurred > threshold * blurred.max()
    return _soft(_distance(inside), edge)


def automatic(
    map_zyx: np.ndarray, lowpass: float = 2.0, share: float = 0.1, grow: float = 3.0, edge: float = 5.0
) -> np.ndarray:
    """A solvent mask for a noisy map: the largest connected part above `share` of the maximum of the blurred map."""
    blurred = ndimage.gaussian_filter(map_zyx.astype(np.float32), lowpass)
    labels = np.asarray(ndimage.label(blurred > share * blurred.max())[0])  # type: ignore[index]
    if not labels.any():
        return np.ones_like(blurred)
    sizes = np.bincount(labels.ravel())[1:]
    inside = labels == 1 + sizes.argmax()
    return _soft(_distance(inside) - grow, edge)


def _distance(inside: np.ndarray) -> np.ndarray:
    """Voxels from each voxel to the nearest one inside."""
    return np.asarray(ndimage.distance_transform_edt(~inside))


def _soft(outside: np.ndarray, edge: float) -> np.ndarray:
    """1 where `outside` ≤ 0, falling to 0 over `edge` voxels."""
    if edge == 0:
        return (outside <= 0).astype(np.float32)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(outside / edge, 0, 1))).astype(np.float32)
