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
from morphem.inference.priors import precision_from_halves
from morphem.inference.subspaces import Subspaces
from morphem.inference.sweep import sweep
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics.noise import ShellPower
from morphem.run import Run

PADDING = 1
"""Of the cubes that are fitted: the residual M-step undoes what coarse interpolation does."""
RISE = 0.01
"""In nats an image: a sweep that brings held-out images less has converged."""
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

    def at(self, radius: float) -> "Model":
        """The same maps, read up to a radius."""
        if radius == self.volume.radius:
            return self
        return dataclasses.replace(self, volume=LinearVolume.of(self.volume.map_czyx, radius, PADDING))


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


def maximise(
    model: Model, halves: tuple[NormalEquations, NormalEquations], mask_zyx: torch.Tensor | float
) -> tuple[Model, NormalEquations]:
    """The model that the sums of both halves ask for, in its gauge, and the sums of all."""
    precision_csj, whole = precision_from_halves(halves, mask_zyx), halves[0]
    whole.merge(halves[1])
    mean, variance = whole.contrast() if model.estep.contrast else (1.0, 0.0)
    maps = mean * whole.solve(precision_csj, LONGEST) * mask_zyx
    volume = orthogonalised(LinearVolume.of(maps, model.volume.radius, PADDING), whole.moment_cjj)
    estep = Subspaces(model.classes, model.estep.latent_dim, variance)
    estep.prior_h = (whole.weight_c + 1) / (whole.images + model.classes)
    estep.exponent = model.estep.exponent
    return Model(volume, estep), whole


@dataclass(frozen=True)
class Climb:
    """Sweeps of EM: which mask multiplies the maps, which images say when to stop, and where the history goes."""

    run: Run
    mask_zyx: torch.Tensor | float
    held_out: Images | None = None
    part: str = ""

    @torch.inference_mode()
    def __call__(self, images: Images, model: Model, sweeps: int, exponents: tuple[float, ...] = ()) -> Model:
        """At most so many sweeps, the first at likelihoods raised to powers; fewer where held-out images say so."""
        before = self._judged(images, model)
        for number in range(sweeps):
            start = time.monotonic()
            model.estep.exponent = exponents[number] if number < len(exponents) else 1.0
            better, whole = maximise(model, accumulate(images, model), self.mask_zyx)
            better.estep.exponent = 1.0
            after = self._judged(images, better)
            self._record(images, better, model.estep.exponent, whole, after, time.monotonic() - start)
            model, gain, before = better, after - before, after
            if gain < RISE:
                break
        return model

    def _judged(self, images: Images, model: Model) -> float:
        """Mean evidence of held-out images; without such every sweep counts as better."""
        if self.held_out is None:
            return np.inf
        return float(evidence(dataclasses.replace(images, halves=self.held_out.halves), model).mean())

    def _record(
        self, images: Images, model: Model, exponent: float, whole: NormalEquations, held_out: float, seconds: float
    ) -> None:
        numbers = {
            "radius": model.volume.radius,
            "images": len(images),
            "exponent": exponent,
            "evidence": round(whole.evidence / whole.images, 5),
            "classes": [round(share, 5) for share in model.estep.prior_h.tolist()],
            "variances": [[float(f"{x:.5g}") for x in row] for row in variances(model.volume, model.classes).tolist()],
        }
        judged = {"held_out": round(held_out, 5)} if np.isfinite(held_out) else {}
        self.run.record(**({"part": self.part} if self.part else {}), **numbers, **judged, seconds=round(seconds, 3))


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
    noise_gs = dataset.noise_gs.clone()
    noise_gs[:, : power.shells] *= power.mean()
    return noise_gs
