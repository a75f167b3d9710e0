"""A linear volume fitted, to all images at once or to two half-sets apart, and what it says of every image.

Axes: n images, c classes, d joint coordinates, e those of the other half, v voxels, z y x maps.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from morphem.data.dataset import Dataset
from morphem.inference.consensus import start
from morphem.inference.expectation import Model
from morphem.inference.linear import JointSpace, Latents, placed, write_classes
from morphem.inference.marching import March
from morphem.inference.settings import LinearSettings
from morphem.models.volume import LinearVolume
from morphem.run import Run

Begin = Callable[[March], Model]
"""What a method is: its model at a coarse radius."""


def fit_linear(dataset: Dataset, settings: LinearSettings, run: Run, begin: Begin) -> tuple[JointSpace, Latents]:
    """Begin, climb, place every image; the maps are written."""
    halves, maps = dataset.halves(run.seed), run.folder / "maps"
    whitened, consensus = start(dataset, run, settings.mask)
    if settings.halves:
        space, found = _apart(dataset, halves, settings, run, begin)
    else:
        march = March.of(whitened, halves, consensus, settings, run)
        model, whitened = march.finished(begin(march))
        space, found = placed(whitened, model)
        if model.classes > 1:
            write_classes(maps, model, dataset.pixel_A)
    space.write(maps, dataset.pixel_A)
    return space, found


def _apart(
    dataset: Dataset, halves: tuple[np.ndarray, np.ndarray], settings: LinearSettings, run: Run, begin: Begin
) -> tuple[JointSpace, Latents]:
    """Two fits that share nothing: the second is brought into the first one's frame, each image keeps its half's z."""
    fits = [_half(dataset, rows, settings, run, begin, number) for number, rows in enumerate(halves, start=1)]
    (first, first_found), (second, second_found) = fits
    second, second_found = brought_to(first, second, second_found)
    for number, space in enumerate((first, second), start=1):
        space.write(run.folder / "maps" / f"half{number}", dataset.pixel_A)
    _say_agreement(run, first_found.z_nd, second_found.z_nd)
    both = 0.5 * (first.volume.map_czyx + second.volume.map_czyx)
    volume = LinearVolume.of(both, first.volume.radius, first.volume.padding)
    return dataclasses.replace(first, volume=volume), first_found.with_rows_of(second_found, halves[1])


def _half(
    dataset: Dataset, rows: np.ndarray, settings: LinearSettings, run: Run, begin: Begin, number: int
) -> tuple[JointSpace, Latents]:
    """Consensus, noise, mask, priors and maps from one half-set alone; every image placed in it."""
    order = np.random.default_rng([run.seed, number]).permutation(rows)
    quarters = np.sort(order[::2]), np.sort(order[1::2])
    whitened, consensus = start(dataset, run, settings.mask, quarters)
    march = March.of(whitened, quarters, consensus, settings, run, f"half {number}")
    model, whitened = march.finished(begin(march))
    if model.classes > 1:
        write_classes(run.folder / "maps" / f"half{number}", model, dataset.pixel_A)
    return placed(whitened, model, rows)


def _say_agreement(run: Run, one_nd: np.ndarray, other_nd: np.ndarray) -> None:
    """How the coordinates of images under the two fits correlate."""
    agreement_d = [float(np.corrcoef(one, other)[0, 1]) for one, other in zip(one_nd.T, other_nd.T, strict=True)]
    run.log("Half-sets fitted apart: z correlates " + ", ".join(f"{value:.2f}" for value in agreement_d))
    run.record(part="halves", agreement=[round(value, 4) for value in agreement_d])


def brought_to(target: JointSpace, space: JointSpace, found: Latents) -> tuple[JointSpace, Latents]:
    """A space and its latents in another's coordinates, such that its maps are as near as they can be to their place.

    Where V(z) = m + U z is to be V'(z') = m' + U' z', z' = T z + t with T = (U'ᵀU')⁻¹U'ᵀU, t = (U'ᵀU')⁻¹U'ᵀ(m − m').
    """
    to_v, to_dv = _flat(target.volume)
    from_v, from_ev = _flat(space.volume)
    solve_dv = torch.linalg.pinv(to_dv @ to_dv.mT) @ to_dv
    turn_de, shift_d = solve_dv @ from_ev.mT, solve_dv @ (from_v - to_v)
    back_ed = torch.linalg.pinv(turn_de)
    map_dv = torch.cat([(from_v - shift_d @ back_ed.mT @ from_ev)[None], back_ed.mT @ from_ev])
    volume = LinearVolume.of(
        map_dv.to(target.volume.map_czyx).unflatten(1, target.volume.map_czyx.shape[1:]),
        space.volume.radius,
        space.volume.padding,
    )
    offset_cd = space.offset_cd @ turn_de.mT + shift_d
    turned = JointSpace(volume, offset_cd, turn_de @ space.turn_cdq)
    turn, shift = turn_de.cpu().numpy(), shift_d.cpu().numpy()
    z_nd, cov_ndd = found.z_nd @ turn.T + shift, turn @ found.cov_ndd @ turn.T
    weight_nc = found.weight_nc
    if len(offset_cd) == len(target.offset_cd):
        distance_cc = torch.cdist(target.offset_cd, offset_cd).cpu().numpy()
        weight_nc = weight_nc[:, linear_sum_assignment(distance_cc)[1]]
    return turned, Latents(z_nd.astype(np.float32), cov_ndd.astype(np.float32), weight_nc)


def _flat(volume: LinearVolume) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (v) and axes (d, v), float64."""
    flat_jv = volume.map_czyx.flatten(1).double()
    return flat_jv[0], flat_jv[1:]
