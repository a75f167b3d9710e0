"""What a fitted mixture of subspaces says of every image, in one space that all its classes share.

K classes of a mean and q eigenvolumes span one linear space of at most K(q + 1) − 1 dimensions about the mean map. Its
principal axes, scaled to variance 1 over the images, are the coordinates z: distances compare maps of different
classes, and V(z) = m + Σ z_d A_d is a linear volume. Of one class they are its own z.

Axes: n images, c h classes, j features, q latent of a class, d joint coordinates, v voxels, z y x maps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from morphem.data.dataset import Dataset, Observed
from morphem.inference.expectation import Model, chunk
from morphem.inference.gauge import frame, in_frame
from morphem.io.mrc import write_map
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.run import progress

NOTHING = 1e-5
"""Of the largest variance: a joint axis with less is none."""


@dataclass(frozen=True, eq=False)
class JointSpace:
    """The mean map and joint axes, and every class's frame in them: z = offset_c + turn_c z_c."""

    volume: LinearVolume
    offset_cd: torch.Tensor
    turn_cdq: torch.Tensor

    @classmethod
    def of(cls, model: Model) -> "JointSpace":
        """Principal axes of Σ_c π_c [(μ_c − m)(μ_c − m)ᵀ + U_c U_cᵀ], largest first, from the maps' Gram matrix."""
        volume, (mean_v, row_rv) = model.volume, model.about_mean()
        root_r = model.estep.prior_h.sqrt().repeat_interleave(len(row_rv) // model.classes)
        gram_rr = (row_rv @ row_rv.mT).double()
        variance_d, vector_rd = torch.linalg.eigh(gram_rr)
        keep_d = (variance_d > NOTHING * variance_d.max()).flip(0)
        variance_d, vector_rd = variance_d.flip(0)[keep_d], vector_rd.flip(1)[:, keep_d]
        axis_dv = vector_rd.mT.to(row_rv) @ row_rv
        place_cjd = (gram_rr @ vector_rd / variance_d / root_r[:, None]).unflatten(0, (model.classes, -1))
        maps = torch.cat([mean_v[None], axis_dv]).unflatten(1, volume.map_czyx.shape[1:])
        return cls(
            LinearVolume.of(maps, volume.radius, volume.padding), place_cjd[:, 0], place_cjd[:, 1:].transpose(1, 2)
        )

    def turned(self, mean_d: torch.Tensor, turn_dd: torch.Tensor) -> "JointSpace":
        """The same space in coordinates z' with z = m + T z'."""
        maps = in_frame(self.volume.map_czyx, mean_d, turn_dd)
        volume = LinearVolume.of(maps, self.volume.radius, self.volume.padding)
        back_dd = torch.linalg.inv(turn_dd)
        return JointSpace(volume, (self.offset_cd - mean_d) @ back_dd.mT, back_dd @ self.turn_cdq)

    def write(self, folder: Path, pixel_A: float) -> None:
        """mean.mrc and eigenvolume_001.mrc …: what z = 1 adds to the mean."""
        mean_zyx, *axes = self.volume.map_czyx.cpu().numpy()
        write_map(folder / "mean.mrc", mean_zyx, pixel_A)
        for number, axis_zyx in enumerate(axes, start=1):
            write_map(folder / f"eigenvolume_{number:03d}.mrc", axis_zyx, pixel_A)


@dataclass(frozen=True, eq=False)
class Latents:
    """Joint z (n, d) and its covariance (n, d, d), and class weights (n, c)."""

    z_nd: np.ndarray
    cov_ndd: np.ndarray
    weight_nc: np.ndarray

    def turned(self, mean_d: torch.Tensor, turn_dd: torch.Tensor) -> "Latents":
        """z' with z = m + T z'."""
        back_dd, mean = np.linalg.inv(turn_dd.cpu().numpy()), mean_d.cpu().numpy()
        z_nd, cov_ndd = (self.z_nd - mean) @ back_dd.T, back_dd @ self.cov_ndd @ back_dd.T
        return Latents(z_nd.astype(np.float32), cov_ndd.astype(np.float32), self.weight_nc)

    def with_rows_of(self, other: "Latents", rows: np.ndarray) -> "Latents":
        """These, with some rows from others; no class weights where the others have another number of classes."""
        same = self.weight_nc.shape == other.weight_nc.shape
        kept = (self.z_nd, other.z_nd), (self.cov_ndd, other.cov_ndd)
        weights = (self.weight_nc, other.weight_nc) if same else (np.ones((len(self.z_nd), 1), np.float32),) * 2
        return Latents(*(_replaced(mine, theirs, rows) for mine, theirs in (*kept, weights)))


def _replaced(mine: np.ndarray, theirs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    mixed = mine.copy()
    mixed[rows] = theirs[rows]
    return mixed


@torch.inference_mode()
def latents(dataset: Dataset, model: Model, space: JointSpace, rows: np.ndarray | None = None) -> Latents:
    """Those of the rows given, or of every image in row order."""
    dataset, found = dataset.within(model.volume.radius), []
    rows = np.arange(len(dataset)) if rows is None else rows
    with progress(len(rows), "Placing images") as bar:
        for observed in dataset.batches(chunk(dataset, len(model.volume.map_czyx)), rows):
            found.append(located(observed, model, space))
            bar.advance(len(observed))
    return Latents(*(torch.cat(part).float().cpu().numpy() for part in zip(*found, strict=True)))


def located(observed: Observed, model: Model, space: JointSpace) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Joint z (b, d), its covariance (b, d, d) and class weights (b, c): moments over classes and within them."""
    guess = model.estep(observed, model.volume, ImageModel())
    weight_bh, z_bhq = guess.logw_bh.exp(), guess.z_bhq
    place_bhd = space.offset_cd + torch.einsum("hdq,bhq->bhd", space.turn_cdq, z_bhq)
    z_bd = torch.einsum("bh,bhd->bd", weight_bh, place_bhd)
    apart_bhd = place_bhd - z_bd[:, None]
    within_bhde = torch.einsum("hdq,bhqp,hep->bhde", space.turn_cdq, guess.z_cov_bhqq, space.turn_cdq)
    within_bhde += apart_bhd[..., :, None] * apart_bhd[..., None, :]
    return z_bd, torch.einsum("bh,bhde->bde", weight_bh, within_bhde), weight_bh


def write_classes(folder: Path, model: Model, pixel_A: float) -> None:
    """class_001.mrc …, and of classes that move class_001_eigenvolume_001.mrc …"""
    for number, map_jzyx in enumerate(model.volume.map_czyx.unflatten(0, (model.classes, -1)).cpu().numpy(), start=1):
        write_map(folder / f"class_{number:03d}.mrc", map_jzyx[0], pixel_A)
        for axis, axis_zyx in enumerate(map_jzyx[1:], start=1):
            write_map(folder / f"class_{number:03d}_eigenvolume_{axis:03d}.mrc", axis_zyx, pixel_A)


def placed(dataset: Dataset, model: Model, rows: np.ndarray | None = None) -> tuple[JointSpace, Latents]:
    """The joint space and every image's place in it, such that over images (`rows`, or all) E[z zᵀ] = 1 and Σ z³ > 0.

    The priors of the M-step make eigenvolumes a little short, and z as much too long: their product is right.
    """
    space = JointSpace.of(model)
    found = latents(dataset, model, space)
    if not found.z_nd.shape[1]:
        return space, found
    counted = slice(None) if rows is None else rows
    phi_nj = np.pad(found.z_nd[counted].astype(float), ((0, 0), (1, 0)), constant_values=1)
    moment_jj = phi_nj.T @ phi_nj / len(phi_nj)
    moment_jj[1:, 1:] += found.cov_ndd[counted].mean(0)
    mean_d, turn_dd = frame(space.volume.map_czyx, torch.from_numpy(moment_jj).to(space.offset_cd))
    third_d = (found.turned(mean_d, turn_dd).z_nd[counted] ** 3).sum(0)
    turn_dd = turn_dd * torch.from_numpy(np.where(third_d < 0, -1.0, 1.0)).to(turn_dd)
    return space.turned(mean_d, turn_dd), found.turned(mean_d, turn_dd)
