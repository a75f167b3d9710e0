"""An ensemble as weighted states in one linear space of maps, so that every method's are asked the same questions.

    V_m = Σ_j φ_mj V_j,   φ_m0 = 1:   V_0 the mean of the states, V_1, V_2 … their principal components, variance 1

The states of a linear volume are images' own z; those of a network are decoded at the medoids of clusters in z.
Axes: m states, c maps as they come, j mean and components, q latent, k mixtures of states, v voxels, z y x maps.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from morphem.inference.clusters import cluster, count_distinct
from morphem.models.volume import LinearVolume, Volume
from morphem.physics import cube as cubes

LINEAR, DECODED = 1000, 160
"""States of a linear volume, and those that a network decodes."""
COMPONENTS = 24
"""Kept at most."""
NEGLIGIBLE = 1e-4
"""Of the largest component's power: one with less is left out."""
BOX = 96
"""Of the maps at most; images are compared at the resolution that it holds."""


@dataclass(frozen=True, eq=False)
class States:
    """What the molecule may look like, and how often it does."""

    volume: LinearVolume
    """V_0, V_1 …"""
    phi_mj: np.ndarray
    weight_m: np.ndarray

    @classmethod
    @torch.inference_mode()
    def of(cls, volume: Volume, z_nq: np.ndarray, seed: int = 0) -> "States":
        """Those of a volume whose images lie at z; one state where there is no z."""
        box = min(volume.box, BOX)
        z_mq, weight_m = _places(volume, z_nq, seed)
        if isinstance(volume, LinearVolume):
            maps, phi_mc = volume.map_czyx.split(1), np.pad(z_mq.astype(float), ((0, 0), (1, 0)), constant_values=1)
        else:
            at = torch.from_numpy(z_mq).to(volume.mask_zyx.device)
            maps, phi_mc = (volume.maps(z_1q) for z_1q in at.split(1)), np.eye(len(z_mq))
        map_czyx = torch.cat([cubes.resampled(map_1zyx.float(), box).cpu() for map_1zyx in maps])
        map_jzyx, phi_mj = _principal(map_czyx, phi_mc, weight_m)
        radius = min(float(volume.radius), box / 2 - 1)
        return cls(LinearVolume.of(map_jzyx, radius), phi_mj, weight_m)

    @property
    def components(self) -> int:
        return self.phi_mj.shape[1] - 1

    @property
    def power_j(self) -> np.ndarray:
        """Of every component's map: its share of the states' variance, up to a factor."""
        return self.volume.map_czyx[1:].square().flatten(1).sum(1).double().numpy()

    def first(self, count: int) -> "States":
        """The same states with the largest components alone."""
        return replace(self, phi_mj=np.where(np.arange(self.phi_mj.shape[1]) <= count, self.phi_mj, 0))

    def maps(self, phi_kj: np.ndarray) -> np.ndarray:
        """Maps (k, z, y, x) anywhere in the space."""
        return torch.einsum("kj,jzyx->kzyx", torch.from_numpy(phi_kj).float(), self.volume.map_czyx).numpy()


def _places(volume: Volume, z_nq: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """z (m, q) of the states, and their weights."""
    if not volume.latent_dim:
        return np.zeros((1, 0), np.float32), np.ones(1)
    if isinstance(volume, LinearVolume):
        chosen = np.random.default_rng(seed).permutation(len(z_nq))[:LINEAR]
        return z_nq[chosen], np.full(len(chosen), 1 / len(chosen))
    found = cluster(z_nq, min(DECODED, count_distinct(z_nq)), seed)
    return z_nq[found.centre_k], found.images_k / len(z_nq)


def _principal(map_czyx: torch.Tensor, phi_mc: np.ndarray, weight_m: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Mean and components (j, z, y, x) of weighted states, and φ (m, j).

    With C = R Rᵀ the states' covariance in the maps given and G the maps' Gram matrix, the eigenvectors e of Rᵀ G R
    give the components' places R e, and φ = (φ_c − mean) G R e / λ.
    """
    map_cv, mean_c = map_czyx.flatten(1).double(), weight_m @ phi_mc
    gram_cc, centred_mc = (map_cv @ map_cv.mT).numpy(), phi_mc - mean_c
    value_c, vector_cc = np.linalg.eigh((centred_mc * weight_m[:, None]).T @ centred_mc)
    root_cc = vector_cc * np.sqrt(value_c.clip(0))
    power_j, axis_cj = np.linalg.eigh(root_cc.T @ gram_cc @ root_cc)
    order = np.argsort(-power_j)[:COMPONENTS]
    order = order[power_j[order] > NEGLIGIBLE * max(power_j[order[0]], 1e-30)]
    place_cj = root_cc @ axis_cj[:, order]
    phi_mj = np.column_stack([np.ones(len(phi_mc)), centred_mc @ gram_cc @ place_cj / power_j[order]])
    mixed_jv = torch.from_numpy(np.vstack([mean_c, place_cj.T])) @ map_cv
    return mixed_jv.float().unflatten(1, map_czyx.shape[1:]), phi_mj
