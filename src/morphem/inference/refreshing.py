"""Poses of a molecule that moves: found again with maps of several of its states in place of one.

At the poses known so far a linear subspace is fitted at a coarse radius. Maps at a few centres of its z are searched
together, as classes that share one frame, and poses are improved against the map that suits each image.
Axes: n images, h candidates of an image, c centres, z y x maps.
"""

import dataclasses

import numpy as np
import torch
from sklearn.cluster import KMeans

from morphem.data.dataset import Dataset
from morphem.inference.abinitio import State
from morphem.inference.candidates import improved, searched
from morphem.inference.consensus import start
from morphem.inference.linear import JointSpace, latents
from morphem.inference.marching import COARSE, March
from morphem.inference.search import PoseSearch
from morphem.inference.settings import LinearSettings
from morphem.inference.starts import LONG, Setting
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics.rotations import distance_rad
from morphem.run import Run

CENTRES, DIMENSIONS = 16, 6
"""How many maps are searched, and of how many dimensions of z they are the centres."""
CANDIDATES = (4, 2, 1)
"""That an image keeps after the search, and after each round of steps."""
AT_REST = np.radians(1.0)
"""A round that turns poses by less, in the median, is the last."""
APART_RAD = 0.2
"""Between candidates of one centre."""


def until_at_rest(setting: Setting, state: State, rounds: int, run: Run) -> State:
    """Rounds of `refreshed` until one hardly turns the poses, at most so many."""
    for number in range(1, rounds + 1):
        state = refreshed(setting, state, run, number)
        if float(state.turned_n.median()) < AT_REST:
            break
    return state


def refreshed(setting: Setting, state: State, run: Run, number: int) -> State:
    """Poses found anew among the centres' maps; `number` counts such rounds from 1."""
    text = f"refresh {number}"
    placed = state.candidates.placed(setting.dataset.with_noise(state.noise_gs))
    volume = centres(placed, run, text)
    radius = setting.radius(LONG[-1].cycles)
    coarse = LinearVolume.of(cubes.resampled(volume.map_czyx, setting.box(radius)), radius)
    search = PoseSearch(setting.grid(LONG[-1]), CANDIDATES[0], APART_RAD)
    candidates = searched(placed, search, coarse, f"Searching poses of {CENTRES} states")
    left_n = state.left_n
    for kept in CANDIDATES:
        candidates, left_n = improved(placed, candidates.best(kept), volume, f"Refining poses of {CENTRES} states")
    new = candidates.best(1)
    angle_n = distance_rad(new.rotation_nh33[:, 0].numpy(), state.candidates.rotation_nh33[:, 0].numpy())
    turned_deg = float(np.degrees(np.median(angle_n)))
    run.record(part="refresh", round=number, turned_deg=round(turned_deg, 3), left=round(float(left_n.median()), 4))
    run.log(f"Poses found again with maps of {CENTRES} states: turned by {turned_deg:.1f}° in the median")
    one_class = dataclasses.replace(new, class_nh=torch.zeros_like(new.class_nh))
    return dataclasses.replace(state, candidates=one_class, left_n=left_n, turned_n=torch.from_numpy(angle_n).float())


def centres(dataset: Dataset, run: Run, text: str) -> LinearVolume:
    """Maps at the centres of z under a subspace fitted at these poses."""
    halves = dataset.halves(run.seed)
    whitened, consensus = start(dataset, run, None, halves)
    march = March.of(whitened, halves, consensus, LinearSettings(starts=2), run, text)
    model = march.climb(march.subspace(DIMENSIONS), COARSE)
    space = JointSpace.of(model)
    z_nd = latents(whitened, model, space).z_nd
    centre_cd = z_nd[:1]
    if z_nd.shape[1]:
        centre_cd = KMeans(min(CENTRES, len(z_nd)), n_init=4, random_state=run.seed).fit(z_nd).cluster_centers_  # pyright: ignore[reportArgumentType]
    mean_zyx, axis_dzyx = space.volume.map_czyx[0], space.volume.map_czyx[1:]
    map_czyx = mean_zyx + torch.einsum("cd,dzyx->czyx", torch.from_numpy(centre_cd).to(mean_zyx), axis_dzyx)
    return LinearVolume.of(map_czyx, model.volume.radius)
