"""The map of all images at their known poses, its half-maps, and the noise that it leaves.

Axes: n images, s shells, j features (one: the map), z y x maps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.inference.esteps import Known
from morphem.inference.msteps import NormalEquations
from morphem.inference.settings import NetworkSettings
from morphem.inference.solving import System
from morphem.inference.sweep import sweep
from morphem.io.mrc import write_map
from morphem.models.field import FieldVolume
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics import masks
from morphem.physics.fsc import HalfMapFsc, fsc, half_map_fsc, write_fsc_star
from morphem.physics.noise import ShellPower
from morphem.run import Run, progress

LEAST_REACH = 6
"""Where half-maps agree on less, so many shells are taken all the same."""


@dataclass(frozen=True)
class Consensus:
    """The map of all images, its half-maps, mask and FSC; maps (z, y, x) in image units."""

    map_zyx: np.ndarray
    within_zyx: np.ndarray
    """The map of what lies within the mask; it vanishes beyond one that was given."""
    half_zyx: tuple[np.ndarray, ...]
    mask_zyx: np.ndarray
    masked: bool
    """Whether the mask was given, so that it holds for every map."""
    fsc: HalfMapFsc

    def reach(self, dataset: Dataset) -> float:
        """The Fourier radius up to which half-maps agree (FSC = 0.143)."""
        whole, resolution_A = dataset.lattice.radius, self.fsc.resolution_A
        reached = whole if resolution_A is None else round(dataset.box * dataset.pixel_A / resolution_A)
        return float(min(whole, max(reached, LEAST_REACH)))

    def volume(self, radius: float, padding: int = 2) -> LinearVolume:
        """The map as a volume."""
        return LinearVolume.of(torch.from_numpy(self.map_zyx)[None], radius, padding)

    def network(
        self,
        dataset: Dataset,
        settings: NetworkSettings,
        latent_dim: int = 0,
        on_map: bool = False,
        conditioning: str = "input",
    ) -> FieldVolume:
        """A coordinate network of the map's amplitude, that adds to the map where `on_map` is set.

        It adds to what the map shows within its mask, given or automatic: the rest is noise that no image asks for.
        """
        radius = dataset.lattice.radius
        shape = settings.width, settings.layers, settings.encoding, on_map, conditioning
        volume = FieldVolume(dataset.box, radius, latent_dim, *shape)
        volume.start_from(LinearVolume.of(torch.from_numpy(self.within_zyx)[None], radius))
        if self.masked:
            volume.mask_zyx = torch.from_numpy(self.mask_zyx)
        return volume.to(dataset.device)

    def write(self, folder: Path, pixel_A: float) -> None:
        """consensus.mrc, its half-maps, mask.mrc and consensus_fsc.star."""
        write_map(folder / "consensus.mrc", self.map_zyx, pixel_A)
        for half, half_zyx in enumerate(self.half_zyx, start=1):
            write_map(folder / f"consensus_half{half}_unfil.mrc", half_zyx, pixel_A)
        write_map(folder / "mask.mrc", self.mask_zyx, pixel_A)
        write_fsc_star(folder / "consensus_fsc.star", self.fsc)


def start(
    dataset: Dataset, run: Run, mask: Path | None, halves: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[Dataset, Consensus]:
    """What most methods begin with: the consensus map and the dataset with the noise that it leaves.

    The map is written, unless it is that of some images only (`halves`: rows of its two half-sets).
    """
    rows = np.arange(len(dataset)) if halves is None else np.concatenate(halves)
    consensus = reconstruct(dataset, run.seed, mask=mask, halves=halves)
    if halves is None:
        consensus.write(run.folder / "maps", dataset.pixel_A)
    run.log(f"Consensus{'' if halves is None else f' of {len(rows)} images'}: {consensus.fsc.summary}")
    volume = consensus.volume(dataset.lattice.radius).to(dataset.device)
    return dataset.with_noise(residual_noise(dataset, volume, rows)), consensus


def reconstruct(
    dataset: Dataset,
    seed: int,
    padding: int = 2,
    mask: Path | None = None,
    symmetry_g33: np.ndarray | None = None,
    halves: tuple[np.ndarray, np.ndarray] | None = None,
) -> Consensus:
    """Back-project two half-sets, correlate them, and merge them, filtered by their FSC.

    The FSC is taken within the mask, given or made; one that is given also multiplies the map, not the half-maps.
    """
    sums = [_accumulate(dataset, rows, padding, symmetry_g33) for rows in halves or dataset.halves(seed)]
    both = merged(*sums)
    (map_zyx,), half_zyx = both.maps(), both.half_hczyx[:, 0]
    mask_zyx = masks.read(mask, dataset.box, dataset.pixel_A) if mask else masks.automatic(map_zyx)
    within_zyx = map_zyx * mask_zyx if mask else both.maps(mask_zyx)[0]
    curves = half_map_fsc(half_zyx[0], half_zyx[1], mask_zyx, dataset.pixel_A, seed)
    return Consensus(within_zyx if mask else map_zyx, within_zyx, tuple(half_zyx), mask_zyx, mask is not None, curves)


@dataclass(frozen=True, eq=False)
class Merged:
    """Maps of two half-sets together, before any filter, the filter's gain on every shell, and half-maps."""

    sharp_czyx: torch.Tensor
    gain_cs: torch.Tensor
    half_hczyx: np.ndarray

    def maps(self, mask_zyx: np.ndarray | None = None) -> np.ndarray:
        """Filtered maps (c, z, y, x), of what lies within a mask; beyond its edge the filter leaves ripples.

        A mask comes before the filter: it spreads the noise of strong shells over the weak ones, where a filter has
        left little that it could not drown.
        """
        mask = 1 if mask_zyx is None else torch.from_numpy(mask_zyx).to(self.sharp_czyx)
        return cubes.filtered(self.sharp_czyx * mask, self.gain_cs).cpu().numpy()


def merged(whole: NormalEquations, other: NormalEquations) -> Merged:
    """Two half-sets put together: Y/(W + T), T = min(1, (1 − F)/2F) W̄ with W̄ the mean weight of a shell and F its FSC,
    to be filtered by 2F/(1 + F) over the shell's mean of W/(W + T), which brings it to scale.

    A prior that outweighs W, as (1 − F)/2F would in the last shells, makes voxels as strong as W is, which differs from
    voxel to voxel by chance. The first half's sums become those of both.
    """
    halves = whole, other
    half_hczyx = np.stack([half.solve(1e-3 * half.shell_weight_csj()).cpu().numpy() for half in halves])
    shells = int(whole.lattice.radius) + 1
    fsc_cs = torch.stack([_smooth(fsc(one, two))[:shells] for one, two in zip(*half_hczyx, strict=True)])
    whole.merge(other)
    ridge_csj = whole.shell_weight_csj()
    ridge_csj[:, :shells] *= ((1 - fsc_cs) / (2 * fsc_cs)).clamp(max=1)[..., None].to(ridge_csj)
    kept_cs = torch.stack([_kept(whole, whole.system(c, ridge_sj)) for c, ridge_sj in enumerate(ridge_csj)])
    gain_cs = (2 * fsc_cs / (1 + fsc_cs)).to(kept_cs) / kept_cs[:, :shells]
    return Merged(whole.solve(ridge_csj), gain_cs, half_hczyx)


def _kept(whole: NormalEquations, system: System) -> torch.Tensor:
    """Mean of W/(W + T) over every shell (s), of voxels by W: those that no image has reached are not to count."""
    weight_zyx1 = system.matrix_zyxp
    kept_s1 = whole.shell_mean(weight_zyx1**2 / (weight_zyx1 + system.ridge_zyxj).clamp(min=1e-30))
    return (kept_s1 / whole.shell_mean(weight_zyx1).clamp(min=1e-30))[:, 0].clamp(min=1e-3)


def _smooth(fsc_s: np.ndarray) -> torch.Tensor:
    """An FSC for the prior: its scatter must not set neighbouring shells so far apart that one leaks into the other."""
    padded_s = np.pad(fsc_s, 1, mode="edge")
    return torch.from_numpy(np.convolve(padded_s, (0.25, 0.5, 0.25), "valid")).float().clamp(0.03, 0.999)


def _accumulate(dataset: Dataset, rows: np.ndarray, padding: int, symmetry_g33: np.ndarray | None) -> NormalEquations:
    sums = NormalEquations(dataset.lattice, padding=padding, device=dataset.device, symmetry_g33=symmetry_g33)
    sweep(dataset, rows, 500, Known(), sums, None, ImageModel(), "Back-projecting")
    return sums


def residual_noise(dataset: Dataset, volume: LinearVolume, rows: np.ndarray | None = None) -> torch.Tensor:
    """σ²(shell) per optics group: the mean of |X − X̂|² under one map; what moves is counted as noise."""
    power, estep, model = ShellPower(dataset.lattice, len(dataset.particles.optics_names)), Known(), ImageModel()
    with progress(len(dataset) if rows is None else len(rows), "Measuring the noise") as bar:
        for observed in dataset.batches(500, rows):
            known = estep(observed, volume, model)
            residual_bhk = model.residual(volume, observed, known.rotation_bh33, known.shift_bh2, known.z_bhq)
            power.add(residual_bhk[:, 0], dataset.particles.optics_n[observed.index_b])
            bar.advance(len(observed))
    return dataset.noise_times(power.mean())
