"""Are the representative maps maps? Those of noise, copies of one another, mirror images, clusters without images.

Of each of 20 spread states: half-maps that agree beyond the third shell (FSC 0.143), and two images of a thousand in
its cluster at the least. Of the two maps that differ most: they are not nearer to each other as mirror images. States
count as different where their maps differ by more than twice their error.
"""

import numpy as np
import torch
from scipy.ndimage import affine_transform

from morphem.evaluation.checks.collapse import state_maps
from morphem.evaluation.checks.halves import STATES, correlations, spread
from morphem.evaluation.validation import Check, Found, Subject
from morphem.inference.clusters import cluster, count_distinct
from morphem.physics import cube as cubes
from morphem.physics import rotations
from morphem.physics.fsc import GOLD

TITLE = "The maps are maps"
REFITS = True
LATENT = True
SHELL = 3
SHARE = 0.002
"""Of the images: a smaller cluster is as good as empty."""
COARSE, TURNS, NEARER = 20, 600, 0.1
"""Box of the maps that are turned, how often, and by how much a mirror image correlates more than what is none."""


def check(subject: Subject) -> Check:
    """Fails where all maps are of noise; doubtful where one is flawed, or none differs from the others."""
    (one, other), near = subject.fits, spread(subject.ensemble.z_nq[subject.common], subject.run.seed)
    state_ks, _ = correlations((one.states, other.states), subject.places, near)
    noise = int((state_ks[:, 1 : SHELL + 2].min(1) < GOLD).sum())
    map_kzyx = one.states.maps(np.stack([subject.places[0][rows].mean(0) for rows in near]))
    mirrored, empty = _mirrored(map_kzyx, subject.run.seed), _empty(subject)
    different = distinct(*state_maps(subject))
    flaws = {"of noise": noise, "a mirror image": mirrored, "of nearly empty clusters": empty}
    told = ", ".join(f"{count} {name}" for name, count in flaws.items() if count)
    bars = {"different": different, **flaws}
    plot = {"kind": "bars", "of": bars, "x_title": f"Of {len(near)} maps"}
    found = Found(different, unit=f"different among {len(near)} maps", plot=plot)
    if noise == len(near):
        return Check("fails", "All maps are of noise.", found)
    if told:
        return Check("doubtful", f"Of {len(near)} maps, {told}.", found)
    if different < 2:
        return Check("doubtful", f"None of {len(near)} maps differs from the others by more than its error.", found)
    return Check("holds", f"No map is of noise, mirrored or empty; {different} of {len(near)} differ clearly.", found)


def _mirrored(map_kzyx: np.ndarray, seed: int) -> int:
    """1 where the two maps that differ most are nearer to each other, turned at best, as mirror images; else 0."""
    coarse_kzyx = cubes.resampled(torch.from_numpy(map_kzyx), COARSE).numpy()
    flat_kv = coarse_kzyx.reshape(len(map_kzyx), -1)
    k, other = np.unravel_index(np.corrcoef(flat_kv).argmin(), (len(map_kzyx),) * 2)
    own, mirror = (
        _nearest(coarse_kzyx[k], map_zyx, seed) for map_zyx in (coarse_kzyx[other], _mirror(coarse_kzyx[other]))
    )
    return int(mirror > own + NEARER)


def _mirror(map_zyx: np.ndarray) -> np.ndarray:
    return np.roll(map_zyx[::-1], 1, 0)


def _nearest(map_zyx: np.ndarray, other_zyx: np.ndarray, seed: int) -> float:
    """The highest correlation of a map with another one, turned about its middle."""
    turn_n33 = np.concatenate([np.eye(3)[None], rotations.uniform(TURNS, np.random.default_rng(seed))])
    middle_3 = np.full(3, len(map_zyx) // 2)
    turned = (affine_transform(other_zyx, t_33, middle_3 - t_33 @ middle_3, order=1) for t_33 in turn_n33)
    return max(float(np.corrcoef(map_zyx.ravel(), other.ravel())[0, 1]) for other in turned)


def _empty(subject: Subject) -> int:
    z_nq = subject.ensemble.z_nq
    count = min(STATES, count_distinct(z_nq))
    return int((cluster(z_nq, count, subject.run.seed).images_k < SHARE * len(z_nq)).sum())


def distinct(one_kv: np.ndarray, other_kv: np.ndarray) -> int:
    """How many maps can be chosen such that any two differ by more than twice their error."""
    error = 2 * np.sqrt(((one_kv - other_kv) ** 2).sum(1).mean())
    middle_kv, chosen = 0.5 * (one_kv + other_kv), []
    for k in range(len(middle_kv)):
        if all(np.linalg.norm(middle_kv[k] - middle_kv[other]) > error for other in chosen):
            chosen.append(k)
    return len(chosen)
