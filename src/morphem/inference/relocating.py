"""Given poses refined against a linear volume: every image at the class and z that suit it, a prior holding it near.

    minimise Σ|X̃ − X̂(R, t, z)|² + ½|z|² + |ω|²/2σ_ω² + |δ|²/2σ_t²,   R = exp([ω]×) R₀,   t = t₀ + δ

about the given (R₀, t₀). How wrong those are is not known: σ comes from the images. The likelihood alone would have the
estimate u with covariance C; over images u ~ N(0, σ² + C), and EM finds the σ that makes this likeliest. Good poses so
stay where they are, though each image alone would move them by its noise.
Axes: b images of a batch, n all images, p parameters (ω, δ), c classes.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.inference.candidates import orthonormal
from morphem.inference.consensus import Consensus, residual_noise
from morphem.inference.expectation import Model, chunk
from morphem.inference.marching import March
from morphem.inference.pose_steps import FREE, Place, climb, with_slopes
from morphem.inference.poses import MOVE_PRIOR, TURN_PRIOR
from morphem.inference.subspaces import Subspaces
from morphem.models.image_model import ImageModel
from morphem.run import Run, progress

LEAST = 1e-4
"""σ, in radians and pixels: what is smaller is none."""
EM_ROUNDS = 50
TIMES, SWEEPS = 3, 2
"""Rounds of maps and poses by turns, and sweeps of a linear volume in each."""


@dataclass(frozen=True)
class Doubt:
    """σ of the given poses: along each axis of rotation, in radians, and along x and y, in pixels."""

    turn: float = TURN_PRIOR
    move: float = MOVE_PRIOR

    @property
    def sigma_5(self) -> np.ndarray:
        return np.repeat([self.turn, self.move], [3, 2])


def with_map(
    given: Dataset, remade: Callable[[Dataset], Consensus], refine: str, run: Run
) -> tuple[Dataset, Consensus]:
    """One map and the poses refined against it, by turns."""
    dataset, consensus, doubt = given, remade(given), Doubt()
    for _ in range(TIMES):
        radius = consensus.reach(given)
        model = Model(consensus.volume(radius, padding=1).to(given.device), Subspaces(1, 0)).at(radius, given.box)
        whitened = given.with_noise(residual_noise(dataset, model.on(given.box).volume))
        found, doubt = relocated(whitened, model, doubt, refine, run)
        dataset = dataclasses.replace(given, particles=found.particles)
        consensus = remade(dataset)
    return dataset, consensus


def with_model(march: March, model: Model, refine: str) -> tuple[Dataset, Model]:
    """A linear volume and the poses refined against it, by turns, at the largest radius."""
    given, doubt, model = march.everything.dataset, Doubt(), march.climb(model)
    for _ in range(TIMES):
        dataset, doubt = relocated(march.whitened(given, model), model, doubt, refine, march.run)
        march = march.at_poses(dataset)
        model = march.settled(model, SWEEPS)
    return march.everything.dataset, model


@torch.inference_mode()
def relocated(dataset: Dataset, model: Model, doubt: Doubt, refine: str, run: Run) -> tuple[Dataset, Doubt]:
    """The dataset at poses refined from its own, and how wrong those are.

    `refine`: shift, rotation or both. Errors of what is not refined stay as they are.
    """
    volume, features = model.volume, model.estep.latent_dim + 1
    slopes = [with_slopes(volume, slice(first, first + features)) for first in range(0, len(volume.map_czyx), features)]
    here, scale, parts = dataset.within(volume.radius), volume.box / dataset.box, []
    sigma_p = torch.from_numpy(doubt.sigma_5 * np.array([1, 1, 1, scale, scale]))
    with progress(len(dataset), "Refining poses") as bar:
        for observed in here.batches(chunk(here, 4 * features)):
            class_b = model.estep(observed, volume, ImageModel()).logw_bh.argmax(1).cpu()
            for c, slope in enumerate(slopes):
                row = (class_b == c).nonzero()[:, 0].numpy()
                if len(row):
                    place = climb(observed.on(volume.box)[row], slope, free=refine, sigma_p=sigma_p)
                    parts.append((observed.index_b[row], *_found(place.cpu(), sigma_p, refine, scale)))
            bar.advance(len(observed))
    index_n, rotation_n33, shift_n2, moved_np, alone_np, cov_npp = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    order_n, table = np.argsort(index_n), dataset.particles
    shift_A_n2 = shift_n2[order_n] * table.pixel_A_n[:, None]
    doubt = _doubted(doubt, alone_np, cov_npp, refine)
    run.log(_told(doubt, moved_np, refine))
    return dataclasses.replace(dataset, particles=table.with_poses(rotation_n33[order_n], shift_A_n2)), doubt


def _told(doubt: Doubt, moved_np: np.ndarray, refine: str) -> str:
    """How far poses have gone, and how wrong the images say that they were."""
    turned_n, moved_n = (np.linalg.norm(moved_np[:, part], axis=1) for part in (slice(3), slice(3, 5)))
    gone, wrong = [], []
    if refine != "shift":
        gone.append(f"turned by {np.degrees(np.median(turned_n)):.2f}°")
        wrong.append(f"{np.degrees(doubt.turn):.2f}°")
    if refine != "rotation":
        gone.append(f"moved by {np.median(moved_n):.2f} pixels")
        wrong.append(f"{doubt.move:.2f} pixels")
    return (
        f"Poses refined: {' and '.join(gone)} in the median; by the images those given err by {' and '.join(wrong)}"
        " along each axis"
    )


def _found(place: Place, sigma_p: torch.Tensor, refine: str, scale: float) -> tuple[np.ndarray, ...]:
    """Poses; (ω, δ) from the given ones, what the likelihood alone would have, and its covariance, in image pixels."""
    free_5 = torch.tensor(FREE[refine], dtype=torch.bool)
    used = torch.cat([free_5, free_5.new_ones(place.z_bq.shape[1])])
    precision_p = torch.cat([sigma_p**-2, sigma_p.new_zeros(place.z_bq.shape[1])])
    data_bpp = 2 * place.bend_bpp.double() - torch.diag(precision_p)
    cov_bpp = torch.zeros_like(data_bpp)
    inner = used.nonzero()[:, 0]
    cov_bpp[:, inner[:, None], inner] = torch.linalg.inv(
        data_bpp[:, inner[:, None], inner] + 1e-9 * torch.eye(len(inner))
    )
    moved_bp = place.moved_bp.double()
    alone_bp = moved_bp + (cov_bpp[:, :5, :5] @ (moved_bp * sigma_p**-2)[..., None])[..., 0]
    pixels_5 = torch.tensor([1, 1, 1, 1 / scale, 1 / scale], dtype=torch.float64)
    cov_bpp = cov_bpp[:, :5, :5] * pixels_5 * pixels_5[:, None]
    pose = orthonormal(place.rotation_b33.double()), place.shift_b2.double() / scale
    return tuple(part.numpy() for part in (*pose, moved_bp * pixels_5, alone_bp * pixels_5, cov_bpp))


def _doubted(doubt: Doubt, alone_np: np.ndarray, cov_npp: np.ndarray, refine: str) -> Doubt:
    """The likeliest σ of either kind that is refined."""
    turns, moves = refine in ("rotation", "both"), refine in ("shift", "both")
    turn = likeliest(doubt.turn, alone_np[:, :3], cov_npp[:, :3, :3]) if turns else doubt.turn
    return Doubt(turn, likeliest(doubt.move, alone_np[:, 3:], cov_npp[:, 3:, 3:]) if moves else doubt.move)


def likeliest(sigma: float, alone_np: np.ndarray, cov_npp: np.ndarray) -> float:
    """σ of u ~ N(0, σ² + C), by EM: σ² ← mean of m² + V over images and axes, m and V the posterior's."""
    for _ in range(EM_ROUNDS):
        gain_npp = np.linalg.inv(np.eye(alone_np.shape[1]) + cov_npp / sigma**2)
        mean_np = (gain_npp @ alone_np[..., None])[..., 0]
        left_n = sigma**2 * (1 - np.trace(gain_npp, axis1=1, axis2=2) / alone_np.shape[1])
        sigma = max(float(np.sqrt(np.mean((mean_np**2).mean(1) + left_n))), LEAST)
    return sigma
