"""Three ways to show variability, as 3D variability display has them: along a component by the model, or as weighted
back-projections of images that lie along it or in clusters.

Axes: n images, m maps, q latent, w windows, h half maps, z y x.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from morphem.analysis.decoding import Frame, refuse_maps, write_frames
from morphem.analysis.maps import camera_of, decoded
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.inference.clusters import cluster
from morphem.inference.windows import reconstruct_windows, triangles
from morphem.physics import cube as cubes
from morphem.run import tracked

Mode = Literal["simple", "cluster", "intermediates"]
LOW, HIGH = 3.0, 97.0
"""Percentiles of a component between which it is shown."""


def display(
    ensemble: Ensemble, mode: Mode, folder: Path, component: int, frames: int, lowpass_A: float | None, overwrite: bool
) -> int:
    """Write the maps of a mode and return how many there are; components and clusters are numbered from 1.

    Errors: InputError for a component that the run does not have, or a folder that holds maps.
    """
    if not ensemble.latent_dim:
        raise InputError(f"{ensemble.folder}: has no latents, and so no components to show")
    if not 1 <= component <= ensemble.latent_dim:
        raise InputError(f"--component {component}: the run has components 1 to {ensemble.latent_dim}")
    if frames < 2:
        raise InputError(f"--frames {frames}: expected at least 2")
    refuse_maps(folder, overwrite)
    made = {"simple": _along, "cluster": _clusters, "intermediates": _intermediates}[mode]
    z_mq, series = made(ensemble, component - 1, frames)
    smooth = (_lowpassed(frame, lowpass_A, ensemble.pixel_A) for frame in series)
    write_frames(folder, smooth, z_mq, camera_of(ensemble).level, ensemble.pixel_A, overwrite)
    return len(z_mq)


def _along(ensemble: Ensemble, component: int, frames: int) -> tuple[np.ndarray, Iterator[Frame]]:
    """V at z = t·e_j, the other components at their means."""
    z_mq = np.repeat(ensemble.z_nq.mean(0)[None], frames, axis=0)
    first, last = np.percentile(ensemble.z_nq[:, component], [LOW, HIGH])
    z_mq[:, component] = np.linspace(first, last, frames)
    return z_mq, map(Frame, decoded(ensemble, z_mq))


def _clusters(ensemble: Ensemble, component: int, count: int) -> tuple[np.ndarray, Iterator[Frame]]:
    """Back-projections of the images of every k-means cluster."""
    found = cluster(ensemble.z_nq, count, ensemble.config["seed"])
    weight_nw = (found.label_n[:, None] == np.arange(1, count + 1)).astype(float)
    return found.mean_kq, _back_projected(ensemble, weight_nw)


def _intermediates(ensemble: Ensemble, component: int, frames: int) -> tuple[np.ndarray, Iterator[Frame]]:
    """Back-projections of the images under overlapping triangles along a component."""
    weight_nw = triangles(ensemble.z_nq[:, component], frames, LOW, HIGH)
    if empty := int((weight_nw.sum(0) <= 0).sum()):
        raise InputError(f"--frames {frames}: {empty} of so many windows hold no image; give fewer")
    mean_mq = weight_nw.T @ ensemble.z_nq / weight_nw.sum(0)[:, None]
    return mean_mq, _back_projected(ensemble, weight_nw)


def _back_projected(ensemble: Ensemble, weight_nw: np.ndarray) -> Iterator[Frame]:
    halves = np.flatnonzero(ensemble.half_n == 1), np.flatnonzero(ensemble.half_n == 2)
    windows = reconstruct_windows(ensemble.refined_dataset(), halves, weight_nw)
    for window in tracked(windows, weight_nw.shape[1], "Back-projecting", "maps"):
        yield Frame(window.map_zyx, window.half_hzyx, {"images": window.images})


def _lowpassed(frame: Frame, lowpass_A: float | None, pixel_A: float) -> Frame:
    if lowpass_A is None:
        return frame

    def filtered(map_zyx: np.ndarray) -> np.ndarray:
        return cubes.lowpass(torch.from_numpy(map_zyx)[None], len(map_zyx) * pixel_A / lowpass_A)[0].numpy()

    return Frame(filtered(frame.map_zyx), tuple(map(filtered, frame.half_hzyx)), frame.facts)
