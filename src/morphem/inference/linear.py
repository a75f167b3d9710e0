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

from morphem.data.dataset import Dataset
from morphem.inference.expectation import Model, chunk
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
        volume, share_c = model.volume, model.estep.prior_h
        map_cjv = volume.map_czyx.flatten(1).unflatten(0, (model.classes, -1)).clone()
        mean_v = torch.einsum("c,cv->v", share_c.to(map_cjv), map_cjv[:, 0])
        map_cjv[:, 0] -= mean_v
        flat_rv, root_r = map_cjv.flatten(0, 1), share_c.sqrt().repeat_interleave(map_cjv.shape[1])
        gram_rr = (flat_rv @ flat_rv.mT).double()
        variance_d, vector_rd = torch.linalg.eigh(root_r[:, None] * gram_rr * root_r)
        keep_d = (variance_d > NOTHING * variance_d.max()).flip(0)
        variance_d, vector_rd = variance_d.flip(0)[keep_d], vector_rd.flip(1)[:, keep_d]
        axis_dv = (root_r[:, None] * vector_rd).mT.to(flat_rv) @ flat_rv
        place_cjd = (gram_rr @ (root_r[:, None] * vector_rd) / variance_d).unflatten(0, (model.classes, -1))
        maps = torch.cat([mean_v[None], axis_dv]).unflatten(1, volume.map_czyx.shape[1:])
        return cls(
            LinearVolume.of(maps, volume.radius, volume.padding), place_cjd[:, 0], place_cjd[:, 1:].transpose(1, 2)
        )

    def flipped(self, sign_d: torch.Tensor) -> "JointSpace":
        """The same space with some axes turned round."""
        sign_jzyx = torch.nn.functional.pad(sign_d, (1, 0), value=1.0)[:, None, None, None]
        volume = LinearVolume.of(
            self.volume.map_czyx * sign_jzyx.to(self.volume.map_czyx), self.volume.radius, self.volume.padding
        )
        return JointSpace(volume, self.offset_cd * sign_d, self.turn_cdq * sign_d[:, None])

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
    """Those of the rows given, or of every image in row order: moments over classes and within them."""
    dataset, found = dataset.within(model.volume.radius), []
    rows = np.arange(len(dataset)) if rows is None else rows
    with progress(len(rows), "Placing images") as bar:
        for observed in dataset.batches(chunk(dataset, len(model.volume.map_czyx)), rows):
            guess = model.estep(observed, model.volume, ImageModel())
            weight_bh, z_bhq = guess.logw_bh.exp(), guess.z_bhq
            place_bhd = space.offset_cd + torch.einsum("hdq,bhq->bhd", space.turn_cdq, z_bhq)
            z_bd = torch.einsum("bh,bhd->bd", weight_bh, place_bhd)
            apart_bhd = place_bhd - z_bd[:, None]
            within_bhqe = torch.einsum("hdq,bhqp,hep->bhde", space.turn_cdq, guess.z_cov_bhqq, space.turn_cdq)
            within_bhqe += apart_bhd[..., :, None] * apart_bhd[..., None, :]
            found.append((z_bd, torch.einsum("bh,bhde->bde", weight_bh, within_bhqe), weight_bh))
            bar.advance(len(observed))
    return Latents(*(torch.cat(part).float().cpu().numpy() for part in zip(*found, strict=True)))


def write_classes(folder: Path, model: Model, pixel_A: float) -> None:
    """class_001.mrc …, and of classes that move class_001_eigenvolume_001.mrc …"""
    for number, map_jzyx in enumerate(model.volume.map_czyx.unflatten(0, (model.classes, -1)).cpu().numpy(), start=1):
        write_map(folder / f"class_{number:03d}.mrc", map_jzyx[0], pixel_A)
        for axis, axis_zyx in enumerate(map_jzyx[1:], start=1):
            write_map(folder / f"class_{number:03d}_eigenvolume_{axis:03d}.mrc", axis_zyx, pixel_A)


def placed(dataset: Dataset, model: Model) -> tuple[JointSpace, Latents]:
    """The joint space, its axes turned so that Σ z³ > 0, and every image's place in it."""
    space = JointSpace.of(model)
    found = latents(dataset, model, space)
    sign_d = np.where((found.z_nd**3).sum(0) < 0, -1.0, 1.0).astype(np.float32)
    turned = Latents(found.z_nd * sign_d, found.cov_ndd * sign_d[:, None] * sign_d, found.weight_nc)
    return space.flipped(torch.from_numpy(sign_d).double().to(space.offset_cd)), turned
