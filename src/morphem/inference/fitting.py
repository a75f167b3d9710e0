"""A linear volume fitted, to all images at once or to two half-sets apart, and what it says of every image.

Axes: n images, c classes, d joint coordinates, e those of the other half, v voxels, z y x maps.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from morphem.data.dataset import Dataset
from morphem.data.particles import Particles
from morphem.inference.classes import by_order
from morphem.inference.consensus import start
from morphem.inference.expectation import Model
from morphem.inference.filtering import locally_filtered
from morphem.inference.linear import JointSpace, Latents, placed, write_classes
from morphem.inference.marching import March
from morphem.inference.reliability import believed
from morphem.inference.relocating import with_model
from morphem.inference.settings import LinearSettings
from morphem.models.volume import LinearVolume
from morphem.run import Run

Begin = Callable[[March], Model]
"""What a method is: its model at a coarse radius."""


def fit_linear(
    dataset: Dataset, settings: LinearSettings, run: Run, begin: Begin
) -> tuple[Dataset, JointSpace, Latents]:
    """Begin, climb, place every image; the maps are written. The dataset is at refined poses if they are asked for."""
    halves, maps = dataset.halves(run.seed), run.folder / "maps"
    whitened, consensus = start(dataset, run, settings.mask)
    if settings.halves:
        dataset, space, found = _apart(dataset, halves, settings, run, begin)
    else:
        march = March.of(whitened, halves, consensus, settings, run)
        march, model = _begun(march, begin)
        model, whitened = march.finished(model)
        dataset = dataclasses.replace(dataset, particles=whitened.particles)
        _say_fewer(run, settings, model)
        space, found = believed(whitened, model, *placed(whitened, model), run)
        space = locally_filtered(space, found, whitened, march.consensus, halves)
        if model.classes > 1:
            write_classes(maps, model, dataset.pixel_A)
    space.write(maps, dataset.pixel_A)
    return dataset, space, found


def _begun(march: March, begin: Begin) -> tuple[March, Model]:
    """A method's model at a coarse radius; with refined poses it is at the largest one, and the consensus is theirs."""
    model, settings = begin(march), march.settings
    if settings.refine_poses == "none":
        return march, model
    dataset, model = with_model(march, model, settings.refine_poses)
    halves = march.everything.halves
    rows = None if len(np.concatenate(halves)) == len(dataset) else halves
    whitened, consensus = start(dataset, march.run, settings.mask, rows)
    return March.of(whitened, halves, consensus, settings, march.run, march.part), model


def _say_fewer(run: Run, settings: LinearSettings, model: Model) -> None:
    """Classes that no images were left for are gone."""
    asked = getattr(settings, "classes", None)
    if asked is not None and model.classes < asked:
        run.notice(f"--classes {asked}: the images fill only {model.classes} classes; the others are left out")


def _apart(
    dataset: Dataset, halves: tuple[np.ndarray, np.ndarray], settings: LinearSettings, run: Run, begin: Begin
) -> tuple[Dataset, JointSpace, Latents]:
    """Two fits that share nothing: the second is brought into the first one's frame, each image keeps its half's z."""
    fits = [_half(dataset, rows, settings, run, begin, number) for number, rows in enumerate(halves, start=1)]
    (one_set, first, first_found, first_model), (other_set, second, second_found, second_model) = fits
    second, second_found = brought_to(first, second, second_found)
    mates_c = mates(first, second)
    if mates_c is None:
        run.log(f"Half-sets ended with {first_model.classes} and {second_model.classes} classes: no weights are kept")
    else:
        second_model = by_order(second_model, torch.from_numpy(mates_c))
        second_found = dataclasses.replace(second_found, weight_nc=second_found.weight_nc[:, mates_c])
    for number, (space, model) in enumerate(((first, first_model), (second, second_model)), start=1):
        folder = run.folder / "maps" / f"half{number}"
        space.write(folder, dataset.pixel_A)
        if model.classes > 1:
            write_classes(folder, model, dataset.pixel_A)
    _say_agreement(run, first_found.z_nd, second_found.z_nd)
    both = 0.5 * (first.volume.map_czyx + second.volume.map_czyx)
    volume = LinearVolume.of(both, first.volume.radius, first.volume.padding)
    dataset = dataclasses.replace(dataset, particles=_mixed(one_set.particles, other_set.particles, halves[1]))
    if settings.refine_poses != "none":
        start(dataset, run, settings.mask)
    return dataset, dataclasses.replace(first, volume=volume), first_found.with_rows_of(second_found, halves[1])


def _mixed(one: Particles, other: Particles, rows: np.ndarray) -> Particles:
    """A table, with some images' poses from another."""
    rotation_n33, shift_A_n2 = one.rotation_n33.copy(), one.shift_A_n2.copy()
    rotation_n33[rows], shift_A_n2[rows] = other.rotation_n33[rows], other.shift_A_n2[rows]
    return one.with_poses(rotation_n33, shift_A_n2)


def _half(
    dataset: Dataset, rows: np.ndarray, settings: LinearSettings, run: Run, begin: Begin, number: int
) -> tuple[Dataset, JointSpace, Latents, Model]:
    """Consensus, noise, mask, priors and maps from one half-set alone; every image placed in it."""
    order = np.random.default_rng([run.seed, number]).permutation(rows)
    quarters = np.sort(order[::2]), np.sort(order[1::2])
    whitened, consensus = start(dataset, run, settings.mask, quarters)
    march = March.of(whitened, quarters, consensus, settings, run, f"half {number}")
    march, model = _begun(march, begin)
    model, whitened = march.finished(model)
    space, found = believed(whitened, model, *placed(whitened, model, rows), run, rows)
    return whitened, locally_filtered(space, found, whitened, march.consensus, quarters), found, model


def _say_agreement(run: Run, one_nd: np.ndarray, other_nd: np.ndarray) -> None:
    """How the coordinates of images under the two fits correlate."""
    if not one_nd.shape[1]:
        return
    agreement_d = [float(np.corrcoef(one, other)[0, 1]) for one, other in zip(one_nd.T, other_nd.T, strict=True)]
    run.log("Half-sets fitted apart: z correlates " + ", ".join(f"{value:.2f}" for value in agreement_d))
    run.record(part="halves", agreement=[round(value, 4) for value in agreement_d])


def brought_to(target: JointSpace, space: JointSpace, found: Latents) -> tuple[JointSpace, Latents]:
    """A space and its latents, turned such that its axes come as near to another's as a rotation can bring them.

    z' = T z, U' = U Tᵀ, T the orthogonal factor of U_targetᵀU (Procrustes). Both halves show the same ensemble, whose
    mean is 0 and covariance 1 in either's z: a map that stretched axes would blow up those that the halves do not
    share. Where the numbers of axes differ, T has as many rows as the target has axes.
    """
    to_dv, from_ev = (one.volume.map_czyx[1:].flatten(1).double() for one in (target, space))
    left_dk, _, right_ke = torch.linalg.svd(to_dv @ from_ev.mT, full_matrices=False)
    turn_de = left_dk @ right_ke
    map_dv = torch.cat([space.volume.map_czyx[0].double().flatten()[None], turn_de @ from_ev])
    maps = map_dv.to(space.volume.map_czyx).unflatten(1, space.volume.map_czyx.shape[1:])
    volume = LinearVolume.of(maps, space.volume.radius, space.volume.padding)
    turned = JointSpace(volume, space.offset_cd @ turn_de.mT, turn_de @ space.turn_cdq)
    turn = turn_de.cpu().numpy()
    z_nd, cov_ndd = found.z_nd @ turn.T, turn @ found.cov_ndd @ turn.T
    return turned, Latents(z_nd.astype(np.float32), cov_ndd.astype(np.float32), found.weight_nc)


def mates(target: JointSpace, space: JointSpace) -> np.ndarray | None:
    """Which class of a space is each class of another, by their places in z; None where the numbers differ."""
    if len(target.offset_cd) != len(space.offset_cd):
        return None
    distance_cc = torch.cdist(target.offset_cd, space.offset_cd).cpu().numpy()
    return linear_sum_assignment(distance_cc)[1]
