"""Expectation-maximisation of linear volumes: K maps with q eigenvolumes each, at known poses.

A sweep is an E-step over all images and a residual M-step; sums are kept per half-set, and the agreement of the halves
sets the priors.

Axes: n images, c classes, j features, q latent, s shells, z y x maps.
"""

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.inference.gauge import orthogonalised, variances
from morphem.inference.msteps import NormalEquations
from morphem.inference.priors import Halves, precision_from_halves
from morphem.inference.subspaces import Subspaces
from morphem.inference.sweep import sweep
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics import masks
from morphem.physics.noise import ShellPower
from morphem.run import Run

PADDING = 1
"""Of the cubes that are fitted: the residual M-step undoes what coarse interpolation does."""
RISE = 0.01
"""In nats an image: a sweep that brings held-out images less has converged."""
STILL = 2e-3
"""Of the maps' power: a sweep that changes less has converged."""
LONGEST = 1.5
"""Times the step that cannot lower the likelihood."""
CHUNK = 8e6
"""Bytes of slices that are worked on at once: what a cache holds."""


@dataclass(frozen=True)
class Images:
    """What a fit sees: the images of a dataset, as two half-sets of rows."""

    dataset: Dataset
    halves: tuple[np.ndarray, np.ndarray]

    def __len__(self) -> int:
        return sum(map(len, self.halves))

    def within(self, radius: float) -> "Images":
        return dataclasses.replace(self, dataset=self.dataset.within(radius))

    def with_noise(self, noise_gs: torch.Tensor) -> "Images":
        """The same images, whitened by another spectrum."""
        return dataclasses.replace(self, dataset=self.dataset.with_noise(noise_gs))

    def some(self, count: int, seed: int) -> "Images":
        """At most so many of them, drawn at random from both halves alike."""
        if len(self) <= count:
            return self
        rng, share = np.random.default_rng([seed, 1]), count / len(self)
        first, second = (np.sort(rng.permutation(rows)[: round(share * len(rows))]) for rows in self.halves)
        return dataclasses.replace(self, halves=(first, second))


@dataclass(frozen=True)
class Model:
    """Maps and class weights: all that EM improves."""

    volume: LinearVolume
    estep: Subspaces

    @property
    def classes(self) -> int:
        return self.estep.classes

    @property
    def device(self) -> torch.device:
        return self.volume.map_czyx.device

    def at(self, radius: float, box: int) -> "Model":
        """The same maps, read up to a radius, on the coarsest grid that serves where `box` is the images'."""
        return self.on(cubes.coarse_box(radius, box), radius)

    def on(self, box: int, radius: float | None = None) -> "Model":
        """The same maps on a grid of `box` voxels, and read up to another radius where one is given."""
        volume, radius = self.volume, radius or self.volume.radius
        if (box, radius) == (volume.box, volume.radius):
            return self
        maps = volume.map_czyx if box == volume.box else cubes.resampled(volume.map_czyx, box)
        return self.with_maps(maps, radius)

    def with_maps(self, map_czyx: torch.Tensor, radius: float | None = None) -> "Model":
        return dataclasses.replace(self, volume=LinearVolume.of(map_czyx, radius or self.volume.radius, PADDING))

    def about_mean(self) -> tuple[torch.Tensor, torch.Tensor]:
        """m = Σ_c π_c μ_c (v), and rows (r, v) with Σ_r row rowᵀ = Σ_c π_c [(μ_c − m)(μ_c − m)ᵀ + U_c U_cᵀ]."""
        map_cjv = self.volume.map_czyx.flatten(1).unflatten(0, (self.classes, -1)).clone()
        share_c = self.estep.prior_h.to(map_cjv)
        mean_v = torch.einsum("c,cv->v", share_c, map_cjv[:, 0])
        map_cjv[:, 0] -= mean_v
        return mean_v, map_cjv.mul_(share_c.sqrt()[:, None, None]).flatten(0, 1)


def chunk(dataset: Dataset, maps: int) -> int:
    """How many images to work on at once."""
    return int(np.clip(CHUNK / (8 * len(dataset.lattice) * maps), 8, 512))


def accumulate(images: Images, model: Model, text: str = "Fitting") -> tuple[NormalEquations, NormalEquations]:
    """The sums of both half-sets under one model."""
    dataset, estep, volume = images.dataset, model.estep, model.volume
    shape = estep.latent_dim + 1, model.classes, volume.padding, dataset.device
    sums = tuple(NormalEquations(dataset.lattice, *shape, around=volume) for _ in range(2))
    for rows, half in zip(images.halves, sums, strict=True):
        sweep(dataset, rows, chunk(dataset, len(volume.map_czyx)), estep, half, volume, ImageModel(), text)
    return sums[0], sums[1]


def maximise(model: Model, halves: Halves, mask_zyx: torch.Tensor) -> tuple[Model, NormalEquations]:
    """The model that the sums of both halves ask for, in its gauge, and the sums of all."""
    share_c, towards = None, None
    if model.classes > 1:
        share_c, towards = model.estep.prior_h, shared(model, halves, mask_zyx)
    precision_csj, whole = precision_from_halves(halves, mask_zyx, share_c), halves[0]
    whole.merge(halves[1])
    mean, variance = whole.contrast() if model.estep.contrast else (1.0, 0.0)
    maps = mean * whole.solve(precision_csj, LONGEST, mask_zyx, towards)
    volume = orthogonalised(LinearVolume.of(maps, model.volume.radius, PADDING), whole.moment_cjj)
    estep = Subspaces(model.classes, model.estep.latent_dim, variance)
    estep.prior_h = (whole.weight_c + 1) / (whole.images + model.classes)
    estep.exponent = model.estep.exponent
    return Model(volume, estep), whole


def shared(model: Model, halves: Halves, mask_zyx: torch.Tensor) -> LinearVolume:
    """The map that all images ask for when no class has one of its own: what classes differ from."""
    pooled = halves[0].pooled(model.estep.prior_h), halves[1].pooled(model.estep.prior_h)
    precision_1sj = precision_from_halves(pooled, mask_zyx)
    pooled[0].merge(pooled[1])
    maps = pooled[0].solve(precision_1sj, LONGEST, mask_zyx)
    return LinearVolume.of(maps, model.volume.radius, PADDING)


@dataclass(frozen=True)
class Climb:
    """Sweeps of EM: outside which mask maps vanish, which images say when to stop, and where the history goes."""

    run: Run
    mask_zyx: np.ndarray
    held_out: Images | None = None
    part: str = ""

    @torch.inference_mode()
    def __call__(self, images: Images, model: Model, sweeps: int, exponents: tuple[float, ...] = ()) -> Model:
        """Sweeps until held-out images gain nothing more or maps come to rest, at most so many.

        The first are at likelihoods raised to powers. Where no images are held out, a sweep that changes more than the
        one before it is the last too.
        """
        dataset = images.dataset
        model = model.at(dataset.lattice.radius, dataset.box)
        mask_zyx = torch.from_numpy(masks.resampled(self.mask_zyx, model.volume.box)).to(model.device)
        model = model.with_maps(model.volume.map_czyx * mask_zyx)
        before, moved_before = self._judged(images, model), np.inf
        for number in range(sweeps):
            start = time.monotonic()
            model.estep.exponent = exponents[number] if number < len(exponents) else 1.0
            better, whole = maximise(model, accumulate(images, model), mask_zyx)
            better.estep.exponent = 1.0
            after, moved = self._judged(images, better), change(model, better)
            told = {"exponent": model.estep.exponent, "change": float(f"{moved:.3g}")}
            self._record(images, better, whole, told, after, time.monotonic() - start)
            model, gain, before = better, after - before, after
            restless = self.held_out is None and moved > moved_before
            if number >= len(exponents) and (gain < RISE or moved < STILL or restless):
                break
            moved_before = moved
        return model

    def _judged(self, images: Images, model: Model) -> float:
        """Mean evidence of held-out images; without such every sweep counts as better."""
        if self.held_out is None:
            return np.inf
        return float(evidence(dataclasses.replace(images, halves=self.held_out.halves), model).mean())

    def _record(
        self, images: Images, model: Model, whole: NormalEquations, told: dict, held_out: float, seconds: float
    ) -> None:
        scale = (model.volume.box / images.dataset.box) ** 3
        numbers = {
            "radius": model.volume.radius,
            "images": len(images),
            **told,
            "evidence": round(whole.evidence / whole.images, 5),
            "classes": [round(share, 5) for share in model.estep.prior_h.tolist()],
            "variances": [
                [float(f"{x * scale:.5g}") for x in row] for row in variances(model.volume, model.classes).tolist()
            ],
        }
        judged = {"held_out": round(held_out, 5)} if np.isfinite(held_out) else {}
        self.run.record(**({"part": self.part} if self.part else {}), **numbers, **judged, seconds=round(seconds, 3))


def change(model: Model, better: Model) -> float:
    """What share of the maps' power a sweep has changed: of their mean, or of the covariance about it.

    The larger of |m' − m|²/|m'|² and ‖C' − C‖²/‖C'‖².
    """
    (mean_v, now_rv), (mean_then_v, then_rv) = better.about_mean(), model.about_mean()
    moved = float((mean_v - mean_then_v).square().sum() / mean_v.square().sum().clamp(min=1e-30))
    pairs = (now_rv, now_rv), (then_rv, then_rv), (now_rv, then_rv)
    now, then, cross = (float((one @ other.mT).square().sum(dtype=torch.float64)) for one, other in pairs)
    return max(moved, (now + then - 2 * cross) / max(now, 1e-30))


@torch.inference_mode()
def evidence(images: Images, model: Model) -> np.ndarray:
    """log p(image) of every image, in the order of both halves' rows; without the constant of the noise."""
    rows, found = np.concatenate(images.halves), []
    for observed in images.dataset.batches(chunk(images.dataset, len(model.volume.map_czyx)), rows):
        found.append(model.estep(observed, model.volume, ImageModel()).evidence_b.cpu().numpy())
    return np.concatenate(found)


@torch.inference_mode()
def remaining_noise(images: Images, model: Model) -> torch.Tensor:
    """σ²(shell) per optics group: the mean of |X − C E[φ]ᵀSV|² + C² (SV)ᴴ Cov φ (SV) over images and classes."""
    dataset, group_n = images.dataset, images.dataset.particles.optics_n
    power, forward = ShellPower(dataset.lattice, len(dataset.particles.optics_names)), ImageModel()
    for observed in dataset.batches(chunk(dataset, len(model.volume.map_czyx)), np.concatenate(images.halves)):
        found = model.estep(observed, model.volume, forward)
        feature_brhj = forward.features(model.volume, observed).unflatten(-1, (model.classes, -1))
        clean_brh = torch.einsum("brhj,bhj->brh", feature_brhj, found.phi_bhj.to(feature_brhj))
        spread_brh = torch.einsum(
            "brhj,bhjl,brhl->brh", feature_brhj, found.phi_cov_bhjj.to(feature_brhj), feature_brhj
        )
        left_brh = (forward.centred(observed)[..., None] - clean_brh) ** 2 + spread_brh
        power_br = (left_brh * found.logw_bh.exp().to(left_brh)[:, None]).sum(-1)
        power.add_power(power_br.unflatten(1, (-1, 2)).sum(-1), group_n[observed.index_b])
    return dataset.noise_times(power.mean())
