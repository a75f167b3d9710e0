"""Kernel decoding: a map at any state, back-projected from the images whose latents lie near it.

For every state, half-set and ring of images the sums of `regression` are accumulated in one pass over the images. Each
bandwidth weighs the rings, and `bandwidth.blend` takes the likeliest of them everywhere in the map.
Derivation and measurements: docs/notes/kernel.md.
Axes: n images, m states, h half-sets, r rings, l bandwidths, b bands, u v w regions, z y x c half cubes or maps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import torch

from morphem.data.dataset import Dataset, Source
from morphem.data.latents import read as read_latents
from morphem.errors import InputError
from morphem.inference.bandwidth import Blend, blend
from morphem.inference.consensus import Consensus, reconstruct, residual_noise
from morphem.inference.neighbours import Latents, Neighbours
from morphem.inference.regression import Centred, Regression, leading_axes
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics.fsc import GOLD, fsc, resolution
from morphem.physics.local import Cells
from morphem.physics.noise import radii
from morphem.run import progress

MEMORY_SHARE = 0.4
"""Of free memory, for the sums of the states that one pass over the images serves."""
BATCH_SAMPLES = 3_000_000
"""Fourier samples of the images that are read and inserted at once."""
CENTRE = 0.6
"""Of the half box: the ball whose regions speak for a band."""


@dataclass(frozen=True, eq=False)
class State:
    """One decoded state; maps (z, y, x) in image units."""

    map_zyx: np.ndarray
    """Of all images, every band and region at its bandwidth, locally filtered."""
    half_hzyx: np.ndarray
    """The half maps at the same bandwidths, unfiltered."""
    images_buvw: np.ndarray
    """The effective number of images in every band and region."""
    bandwidth_buvw: np.ndarray
    """h there, between those of the ladder; infinite where all images count alike."""
    fsc_buvw: np.ndarray
    """The local FSC of the half maps."""

    @classmethod
    def of(cls, found: Blend, near: Neighbours) -> "State":
        level_buvw = found.level_buvw.cpu().numpy()
        ladder = np.arange(len(near.images_l))
        images_buvw = np.exp(np.interp(level_buvw, ladder, np.log(near.images_l)))
        with np.errstate(divide="ignore"):
            bandwidth_buvw = 1 / np.interp(level_buvw, ladder, 1 / near.bandwidth_l)
        maps = found.map_zyx.cpu().numpy(), found.half_hzyx.cpu().numpy()
        return cls(*maps, images_buvw, bandwidth_buvw, found.fsc_buvw.cpu().numpy())

    def within(self, box: int | None) -> "State":
        """The maps Fourier-cropped to `box`, densities kept."""
        if box in (None, len(self.map_zyx)):
            return self
        own, *halves = cubes.crop(torch.from_numpy(np.stack([self.map_zyx, *self.half_hzyx])), box).numpy()
        return replace(self, map_zyx=own, half_hzyx=np.stack(halves))

    def resolution_A(self, pixel_A: float) -> float:
        """Where the FSC of the half maps crosses 0.143; Nyquist where it does not."""
        return resolution(fsc(*self.half_hzyx), pixel_A, GOLD) or 2 * pixel_A

    def local(self, pixel_A: float, box: int | None = None) -> dict[str, np.ndarray]:
        """Maps (z, y, x) of `resolution`, in Å where the local FSC falls below 0.143, and of `images`.

        The latter is the effective number of images at the finest band that is resolved.
        """
        cells, fsc_buvw = Cells.of(len(self.map_zyx)), torch.from_numpy(self.fsc_buvw)
        band_uvw = cells.resolved(fsc_buvw, GOLD)
        finest_1uvw = band_uvw.long().clamp(min=0)[None]
        images_uvw = torch.from_numpy(self.images_buvw).float().log().gather(0, finest_1uvw)[0]
        frequency_zyx, images_zyx = cells.spread(torch.stack([cells.frequency(band_uvw, pixel_A), images_uvw]), box)
        return {"resolution": (1 / frequency_zyx).numpy(), "images": images_zyx.exp().numpy()}

    def of_bands(self, value_buvw: np.ndarray) -> np.ndarray:
        """The median of each band over the regions in the middle of the box."""
        inside_uvw = radii(value_buvw.shape[-1], 3).numpy() < CENTRE
        return np.median(value_buvw[:, inside_uvw], axis=1)


def decoder(
    dataset: Dataset,
    latents: Latents,
    half_n: np.ndarray,
    consensus_zyx: np.ndarray,
    mask_zyx: np.ndarray | None = None,
) -> "Kernel":
    """The decoder of images that are whitened by the noise which their consensus map leaves."""
    volume = LinearVolume.of(torch.tensor(consensus_zyx)[None], dataset.lattice.radius).to(dataset.device)
    return Kernel(dataset.with_noise(residual_noise(dataset, volume)), latents, half_n, mask_zyx=mask_zyx)


def for_latents(path: Path, source: Source, device: str = "cpu", seed: int = 0) -> tuple["Kernel", Consensus]:
    """The decoder of images and another program's latents, and the images' consensus. Errors: InputError."""
    z_nq = read_latents(path, len(source.open()))
    dataset = Dataset.open(source, device=device)
    consensus, half_n = reconstruct(dataset, seed), np.ones(len(dataset), int)
    half_n[dataset.halves(seed)[1]] = 2
    return decoder(dataset, Latents(z_nq), half_n, consensus.map_zyx), consensus


@dataclass(frozen=True, eq=False)
class Kernel:
    """The decoder: images, where they lie in latent space, and their half-sets.

    Errors: InputError where latents or half-sets are not those of the images.
    """

    dataset: Dataset
    latents: Latents
    half_n: np.ndarray
    """1 or 2."""
    padding: int = 1
    directions: int = 0
    """Axes of the local-linear regression; 0 averages."""
    mask_zyx: np.ndarray | None = None
    """Multiplies every map."""

    def __post_init__(self) -> None:
        name, images = self.dataset.source.particles, len(self.dataset)
        if len(self.latents) != images or len(self.half_n) != images:
            raise InputError(f"{name}: {images} images, but {len(self.latents)} latents; give those of these images")
        if min(np.sum(self.half_n == 1), np.sum(self.half_n == 2)) < 2:
            raise InputError(f"{name}: a half-set holds fewer than 2 of {images} images; give more images")
        if not 0 <= self.directions <= min(3, self.latents.z_nq.shape[1]):
            raise InputError(f"{self.directions} directions: expected 0 to 3, and no more than z has numbers")

    @cached_property
    def regression(self) -> Regression:
        axes_qj = leading_axes(self.latents.z_nq, self.directions)
        return Regression(self.dataset.lattice, axes_qj, self.padding, self.dataset.device)

    def states(self, z_mq: np.ndarray) -> Iterator[State]:
        """Each row of z decoded; states share passes over the images as memory allows."""
        size = self._states_at_once()
        for start in range(0, len(z_mq), size):
            group_mq = np.asarray(z_mq[start : start + size], float)
            near_m = [self.latents.near(z_q) for z_q in group_mq]
            for near, sum_hrzyxc in zip(near_m, self.sums(group_mq, near_m), strict=True):
                yield State.of(self._blend(self.at_bandwidths(near, sum_hrzyxc)), near)

    def sums(self, z_mq: np.ndarray, near_m: list[Neighbours]) -> torch.Tensor:
        """Those of every state, half-set and ring, (m, h, r, z, y, x, c), in one pass over the images."""
        rings = max(near.weight_lr.shape[1] for near in near_m)
        shape = len(near_m), 2, rings, *self.regression.shape
        sum_mhrzyxc = torch.zeros(shape, device=self.dataset.device)
        with progress(len(self.dataset), f"Inserting at {len(near_m)} states") as bar:
            for observed in self.dataset.batches(max(1, BATCH_SAMPLES // len(self.dataset.lattice))):
                images, row_b = Centred.of(observed), observed.index_b
                for z_q, near, sum_hrzyxc in zip(z_mq, near_m, sum_mhrzyxc, strict=True):
                    moment_bc = self._moments(z_q, row_b)
                    place_b = (self.half_n[row_b] - 1) * rings + near.ring_n[row_b]
                    for place in np.unique(place_b):
                        chosen = torch.from_numpy(np.flatnonzero(place_b == place)).to(self.dataset.device)
                        into_zyxc = sum_hrzyxc[place // rings, place % rings]
                        self.regression.add(images, chosen, moment_bc, into_zyxc)
                bar.advance(len(observed))
        return sum_mhrzyxc

    def at_bandwidths(self, near: Neighbours, sum_hrzyxc: torch.Tensor) -> torch.Tensor:
        """The sums of half-sets at every bandwidth, (h, l, z, y, x, c)."""
        weight_lr = torch.from_numpy(near.weight_lr).to(sum_hrzyxc)
        return torch.einsum("lr,hrzyxc->hlzyxc", weight_lr, sum_hrzyxc[:, : weight_lr.shape[1]])

    def _blend(self, sum_hlzyxc: torch.Tensor) -> Blend:
        half_hlzyx = torch.stack([self.regression.maps(sum_lzyxc) for sum_lzyxc in sum_hlzyxc])
        return blend(half_hlzyx, self.regression.maps(sum_hlzyxc.sum(0)), self.mask_zyx)

    def _moments(self, z_q: np.ndarray, row_b: np.ndarray) -> torch.Tensor:
        covariance_nqq = self.latents.covariance_nqq
        covariance_bqq = None if covariance_nqq is None else covariance_nqq[row_b]
        return self.regression.moments(self.latents.z_nq[row_b] - z_q, covariance_bqq)

    def _states_at_once(self) -> int:
        """How many states' sums fit into a share of the memory that is free."""
        free = torch.cuda.mem_get_info()[0] if self.dataset.device == "cuda" else psutil.virtual_memory().available
        rings = len(self.latents.rings)
        return max(1, int(MEMORY_SHARE * free // (4 * 2 * rings * np.prod(self.regression.shape))))
