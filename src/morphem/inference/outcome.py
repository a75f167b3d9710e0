"""What a search for poses leaves: the other hand, the maps of classes, and whether to believe the result.

Axes: n images, c classes, v bins of views, z y x maps.
"""

from pathlib import Path

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.errors import NoResultError
from morphem.inference.abinitio import AGREE_DEG, TURNED_RAD, State, reach
from morphem.inference.candidates import AtCandidates, Candidates
from morphem.inference.consensus import merged
from morphem.inference.consensus import start as consensus_of
from morphem.inference.expectation import Model
from morphem.inference.linear import JointSpace, Latents, write_classes
from morphem.inference.linear import placed as placed_in
from morphem.inference.msteps import NormalEquations
from morphem.inference.starts import Setting, Start
from morphem.inference.subspaces import Subspaces
from morphem.inference.sweep import sweep
from morphem.io.mrc import read_map, write_map
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import grids
from morphem.physics.alignment import handed
from morphem.run import Run

SURE = 4.0
"""Standard errors by which held-out images must prefer a map to its amplitudes with random phases."""
LEAST_CYCLES = 3.0
"""Across the particle, up to which half-maps must agree."""
COLLAPSED = 0.1
"""Of the sphere: views that fill no more are no set of views."""
MOST_BINS, AN_IMAGE = 200, 0.2
"""Bins that views are counted in: at most, and an image."""


def write_mirror(dataset: Dataset, folder: Path) -> None:
    """maps/mirror.mrc and particles_mirror.star: the other hand, which the images cannot tell from the first."""
    particles = dataset.particles
    map_zyx, pixel_A = read_map(folder / "maps" / "consensus.mrc")
    write_map(folder / "maps" / "mirror.mrc", np.roll(map_zyx[::-1], 1, axis=0), pixel_A)
    mirrored = particles.with_poses(handed(particles.rotation_n33, True), particles.shift_A_n2)
    mirrored.write(folder / "particles_mirror.star")


def by_class(
    dataset: Dataset, candidates: Candidates, classes: int, mask: Path | None, run: Run
) -> tuple[JointSpace, Latents]:
    """The maps of classes, each from its images alone, their joint space, and every image's place in it."""
    whitened, consensus = consensus_of(dataset, run, mask)
    best = candidates.best(1)
    estep, sums = AtCandidates(best, 1.0, torch.ones(len(best))), []
    for rows in dataset.halves(run.seed):
        sums.append(NormalEquations(dataset.lattice, classes=classes, device=dataset.device))
        sweep(whitened, rows, 500, estep, sums[-1], None, ImageModel(), "Back-projecting classes")
    map_czyx = merged(*sums).maps() * (consensus.mask_zyx if consensus.masked else 1)
    weights = Subspaces(classes, 0, 0.0)
    count_c = torch.bincount(best.class_nh[:, 0], minlength=classes)
    weights.prior_h = (count_c + 1.0).double() / (len(best) + classes)
    model = Model(LinearVolume.of(torch.from_numpy(map_czyx), dataset.lattice.radius), weights)
    write_classes(run.folder / "maps", model, dataset.pixel_A)
    space, found = placed_in(whitened, model)
    space.write(run.folder / "maps", dataset.pixel_A)
    return space, found


def judge(setting: Setting, start: Start, apart_deg: float | None, state: State, run: Run) -> None:
    """Say and record the evidence, which the report repeats. Errors: NoResultError, with each reason against it."""
    filled, agreed = views_filled(state.candidates.rotation_nh33[:, 0].numpy()), reach(state.curve_s.numpy())
    agreed_A, turned = setting.resolution_A(max(agreed, 1)), float((state.turned_n > TURNED_RAD).float().mean())
    beyond_n = state.candidates.shift_nh2[:, 0].norm(dim=1) > setting.reach + 1
    evidence = {
        "gain": round(start.gain, 3),
        "gain_error": round(start.error, 3),
        "starts_apart_deg": None if apart_deg is None else round(apart_deg, 2),
        "views_filled": round(filled, 3),
        "agreed_A": round(agreed_A, 2),
        "turned_last_round": round(turned, 4),
        "beyond_shift": round(float(beyond_n.float().mean()), 4),
        "left": round(float(state.left_n.median()), 4),
    }
    run.record(part="outcome", **evidence)
    reasons = _against(setting, start, apart_deg, agreed, filled)
    run.notice(
        f"Poses found: half-maps agree to {agreed_A:.2f} Å (FSC = 0.5, half-sets of one refinement's poses:"
        f" not gold standard), views fill {filled:.0%} of the sphere, {turned:.1%} of images turned by more than 5° in"
        " the last round; the hand is open: maps/mirror.mrc and particles_mirror.star are the other one"
        + "".join(f"; {reason}" for reason in reasons)
    )
    if reasons:
        raise NoResultError(f"{run.folder}: {'; '.join(reasons)}; what was found is kept there, but do not believe it")


def _against(setting: Setting, start: Start, apart_deg: float | None, agreed: int, filled: float) -> list[str]:
    """What speaks against the result."""
    agreed_A, apart_deg = setting.resolution_A(max(agreed, 1)), apart_deg or 0.0
    gain = f"{start.gain:.2f} ± {start.error:.2f} nats better than one of random phases"
    holds = {
        f"no structure found: held-out images fit the map only {gain}": start.gain < SURE * start.error,
        f"not converged: the two nearest starts differ by {apart_deg:.0f}° in the median": apart_deg > AGREE_DEG,
        f"half-maps agree only to {agreed_A:.2f} Å": agreed < setting.radius(LEAST_CYCLES),
        f"views collapsed onto {filled:.0%} of the sphere": filled < COLLAPSED,
    }
    return [reason for reason, is_so in holds.items() if is_so]


def views_filled(rotation_n33: np.ndarray) -> float:
    """exp(entropy) of directions of view over equal bins of the half sphere, as a share of their number.

    A view and its opposite are mirror images of each other, so a half sphere holds all.
    """
    bins = int(min(MOST_BINS, max(10, AN_IMAGE * len(rotation_n33))))
    centre_v3 = grids.views(2 * bins)[:bins, 2]
    nearest_n = np.abs(rotation_n33[:, 2] @ centre_v3.T).argmax(1)
    share_v = np.bincount(nearest_n, minlength=bins) / len(nearest_n)
    share_v = share_v[share_v > 0]
    return float(np.exp(-(share_v * np.log(share_v)).sum()) / bins)
