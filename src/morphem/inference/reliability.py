"""How far coordinates of images are to be believed: each image's samples, split in two, place it twice.

    r_d = correlation over images of z_d from either half,   ρ_d = 2 r_d / (1 + r_d)

ρ (Spearman and Brown's) is what both halves together reach. A model expects of either half
r_d = var E[z_d] / (var E[z_d] + mean Var z_d); images whose halves agree less are placed less surely than it says.
Axes: n images, d joint coordinates. Source: C. Spearman, Br. J. Psychol. 3, 271 (1910).
"""

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.inference.expectation import Model, chunk
from morphem.inference.linear import JointSpace, Latents, latents, located
from morphem.inference.subspaces import Subspaces
from morphem.models.volume import LinearVolume
from morphem.run import Run

IMAGES = 2000
"""At most so many are asked."""
GAP = 0.05
"""Of ρ: a coordinate that falls short of the model's by more is shortened."""
ROUNDS = 5


def believed(
    dataset: Dataset, model: Model, space: JointSpace, found: Latents, run: Run, rows: np.ndarray | None = None
) -> tuple[JointSpace, Latents]:
    """The space and every image's place in it, each axis of one class no longer than its reliability allows.

    An axis' variance is lowered by the ratio of the odds ρ/(1 − ρ), seen to expected, until both agree; then its z have
    less of their image and more of the prior. Both ρ go to the log and the history.
    """
    if not found.z_nd.shape[1]:
        return space, found
    rows = np.arange(len(dataset)) if rows is None else rows
    for left in reversed(range(ROUNDS)):
        seen_d, told_d = reliability(dataset, model, space, rows)
        short_d = seen_d < told_d - GAP
        if model.classes > 1 or not short_d.any() or not left:
            break
        odds_d = (seen_d * (1 - told_d) / (told_d * (1 - seen_d))).clip(1e-6)
        model, space = _shortened(model, space, np.where(short_d, np.sqrt(odds_d), 1))
        found = latents(dataset, model, space)
    run.log(f"Reliability of z, of either half of the samples: {_told(seen_d)}; the model expects {_told(told_d)}")
    run.record(part="reliability", seen=seen_d.round(4).tolist(), expected=told_d.round(4).tolist())
    return space, found


def _told(value_d: np.ndarray) -> str:
    return " ".join(f"{value:.2f}" for value in value_d)


def _shortened(model: Model, space: JointSpace, scale_d: np.ndarray) -> tuple[Model, JointSpace]:
    """One class, its axes those of the space times a scale."""
    map_czyx = space.volume.map_czyx.clone()
    map_czyx[1:] *= torch.from_numpy(scale_d).to(map_czyx)[:, None, None, None]
    volume = LinearVolume.of(map_czyx, space.volume.radius, space.volume.padding)
    estep = Subspaces(1, len(scale_d), model.estep.contrast_variance).to(map_czyx.device)
    unturned = torch.zeros_like(space.offset_cd), torch.eye(len(scale_d)).to(space.turn_cdq)[None]
    return Model(volume, estep), JointSpace(volume, *unturned)


@torch.inference_mode()
def reliability(dataset: Dataset, model: Model, space: JointSpace, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ρ (d) that the images show, and that the model expects."""
    dataset, found = dataset.within(model.volume.radius), []
    rows = rows[:: 1 + len(rows) // IMAGES]
    for observed in dataset.batches(chunk(dataset, len(model.volume.map_czyx)), rows):
        halves = [located(observed.every_other(first), model, space) for first in (0, 1)]
        found.append([torch.stack([z_bd, cov_bdd.diagonal(dim1=1, dim2=2)]) for z_bd, cov_bdd, _ in halves])
    z_hnd, spread_hnd = torch.stack([torch.cat(half, 1) for half in zip(*found, strict=True)], 1).double().cpu().numpy()
    z_hnd -= z_hnd.mean(1, keepdims=True)
    power_hd = (z_hnd**2).mean(1).clip(1e-30)
    seen_d = z_hnd.prod(0).mean(0) / np.sqrt(power_hd.prod(0))
    told_d = (power_hd / (power_hd + spread_hnd.mean(1))).mean(0)
    return _of_both(seen_d.clip(0)), _of_both(told_d)


def _of_both(half_d: np.ndarray) -> np.ndarray:
    return 2 * half_d / (1 + half_d)
