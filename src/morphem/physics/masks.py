"""Soft masks in real space. Axes: z y x."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from morphem.errors import InputError
from morphem.io.mrc import read_map_of


def read(path: Path, box: int, pixel_A: float) -> np.ndarray:
    """A mask of that box and pixel size. Errors: InputError for another size, an empty one, or values beyond 0 to 1."""
    mask_zyx = read_map_of(path, box, pixel_A)
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
    map_zyx: np.ndarray,
    spread_zyx: np.ndarray | None = None,
    lowpass: float = 2.0,
    grow: float = 3.0,
    edge: float = 5.0,
) -> np.ndarray:
    """A solvent mask for a noisy map: the largest connected part above a tenth of the maximum of the blurred map.

    With the standard deviation of many maps (`spread_zyx`), also where that is above a fifth of its own maximum.
    """
    inside = _above(map_zyx, 0.1, lowpass)
    if spread_zyx is not None:
        inside |= _above(spread_zyx, 0.2, lowpass)
    labels = np.asarray(ndimage.label(inside)[0])  # type: ignore[index]
    if not labels.any():
        return np.ones(map_zyx.shape, np.float32)
    sizes = np.bincount(labels.ravel())[1:]
    return _soft(_distance(labels == 1 + sizes.argmax()) - grow, edge)


def resampled(mask_zyx: np.ndarray, box: int) -> np.ndarray:
    """The same mask on a grid of `box` voxels of the same side in Å, linear between voxels: 0 and 1 stay so."""
    step = mask_zyx.shape[0] / box
    return ndimage.affine_transform(mask_zyx, [step] * 3, output_shape=(box,) * 3, order=1, mode="nearest")


def _above(map_zyx: np.ndarray, share: float, lowpass: float) -> np.ndarray:
    blurred = ndimage.gaussian_filter(map_zyx.astype(np.float32), lowpass)
    return blurred > share * blurred.max()


def _distance(inside: np.ndarray) -> np.ndarray:
    """Voxels from each voxel to the nearest one inside."""
    return np.asarray(ndimage.distance_transform_edt(~inside))


def _soft(outside: np.ndarray, edge: float) -> np.ndarray:
    """1 where `outside` ≤ 0, falling to 0 over `edge` voxels."""
    if edge == 0:
        return (outside <= 0).astype(np.float32)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(outside / edge, 0, 1))).astype(np.float32)
