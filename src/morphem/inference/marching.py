"""From nothing to a fitted linear volume: starts at a coarse radius, the best of them, then finer and finer.

Axes: n images, c classes, j features, q latent of a class, w latent of a wide subspace, z y x maps.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.inference import classes as splitting
from morphem.inference import heldout
from morphem.inference.consensus import Consensus
from morphem.inference.expectation import PADDING, Climb, Images, Model, evidence, remaining_noise
from morphem.inference.linear import JointSpace, latents
from morphem.inference.settings import LinearSettings
from morphem.inference.subspaces import Subspaces
from morphem.io.mrc import read_map_of
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics import masks
from morphem.physics.noise import radii, window
from morphem.run import Run

RADII = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
FIRST, COARSE = 12, 16
"""The radius of starts, and the one at which classes are told apart and models compared."""
EXPONENTS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the likelihood in the first sweeps: with all of it, some starts stall."""
SEEN_AT_START = 10_000
"""Images; coarse maps need no more."""
SHELLS_AT_START, SIZE_AT_START = 6, 0.1
"""Eigenvolumes start as noise up to so many shells, of a tenth of the mean's norm."""
CONTRAST = 0.04
"""Variance at the start, where it is hidden."""
FEWEST_HELD_OUT, MOST_HELD_OUT = 10, 0.25
"""Images of either half that are held out, where they are no larger share."""
NOISE_IMAGES = 2000
"""That the noise is measured on."""
WIDEST, SPARE = 12, 2
"""Dimensions of the subspace that classes start from: at most, and beyond what they have themselves."""


@dataclass(frozen=True)
class March:
    """What a fit goes on from: images to fit and to hold out, their consensus, and where all is said."""

    images: Images
    held_out: Images
    everything: Images
    """Both, for the last passes."""
    consensus: Consensus
    settings: LinearSettings
    run: Run
    part: str = ""

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        halves: tuple[np.ndarray, np.ndarray],
        consensus: Consensus,
        settings: LinearSettings,
        run: Run,
        part: str = "",
    ) -> "March":
        """Hold out a share of either half's rows, and of few images a larger one, so that they can choose."""
        shares = (max(settings.held_out, min(MOST_HELD_OUT, FEWEST_HELD_OUT / len(rows))) for rows in halves)
        split = [heldout.split(rows, share, run.seed, len(rows)) for rows, share in zip(halves, shares, strict=True)]
        images, held_out, everything = (
            Images(dataset, (first, second)) for first, second in (*zip(*split, strict=True), halves)
        )
        return cls(images, held_out, everything, consensus, settings, run, part)

    def at_poses(self, dataset: Dataset) -> "March":
        """The same march with the images at other poses, and whitened as they are."""
        parts = {name: getattr(self, name) for name in ("images", "held_out", "everything")}
        return dataclasses.replace(
            self, **{name: dataclasses.replace(part, dataset=dataset) for name, part in parts.items()}
        )

    def whitened(self, dataset: Dataset, model: Model) -> Dataset:
        """Images at other poses whitened by the noise that a model leaves in these."""
        return dataset.with_noise(self._by_noise_of(self.everything, model).dataset.noise_gs)

    def settled(self, model: Model, sweeps: int) -> Model:
        """After some sweeps at its radius, with all images."""
        images = self._by_noise_of(self.everything, model).within(model.volume.radius)
        return Climb(self.run, self.mask(model), None, self.part)(images, model, sweeps)

    @cached_property
    def largest(self) -> float:
        """The radius to end at: where half-maps of the consensus agree, or what is asked for."""
        whole = self.images.dataset.lattice.radius
        if self.settings.radius is not None:
            return whole
        return self.consensus.reach(self.images.dataset)

    @cached_property
    def few(self) -> Images:
        """What coarse maps are fitted to."""
        return self.images.some(SEEN_AT_START, self.run.seed)

    def subspace(self, latent_dim: int) -> Model:
        """(1, q) at the radius of starts: the best of several; without dimensions there is one."""
        begun = (
            (self._noise(latent_dim, start), self._sphere, f"start {start + 1}")
            for start in range(self.settings.starts if latent_dim else 1)
        )
        return self._best("start", [self._started(*one, len(EXPONENTS), EXPONENTS) for one in begun])

    def mixture(self, wide: Model, classes: int, latent_dim: int) -> Model:
        """(K, q) at the coarse radius, started from clusters in z of a wide subspace: the best of several."""
        mask_zyx, space = self.mask(wide), JointSpace.of(wide)
        found = latents(self.few.dataset, wide, space, np.concatenate(self.few.halves))
        spread_w = found.cov_ndd.diagonal(axis1=1, axis2=2).mean(0)
        where, shape = (space.volume, found.z_nd, spread_w), (classes, latent_dim)
        begun = splitting.splits(*where, shape, self.settings.starts, wide.estep.contrast_variance)
        sweeps = self.settings.sweeps
        return self._best("split", [self._started(one, mask_zyx, f"{classes} classes", sweeps) for one in begun])

    def of_maps(self, paths: tuple[Path, ...]) -> Model:
        """(K, 0) at the radius of starts, from maps in files."""
        dataset = self.images.dataset
        maps = [read_map_of(path, dataset.box, dataset.pixel_A) for path in paths]
        map_czyx = torch.from_numpy(np.stack(maps)).to(dataset.device)
        contrast = CONTRAST if self.settings.free_contrast else 0.0
        return splitting.of_maps(map_czyx, min(FIRST, self.largest), contrast)

    def wide(self, classes: int | None = None, latent_dim: int = 0) -> tuple["March", Model]:
        """The subspace that classes start from, at the coarse radius; the march on whitened by the noise beneath it.

        Means of K classes span K − 1 dimensions; a few more hold what else moves.
        """
        dimensions = WIDEST if classes is None else max(latent_dim, min(WIDEST, classes + latent_dim + SPARE))
        model = self.climb(self.subspace(dimensions), COARSE)
        noise_gs = remaining_noise(self.few.some(NOISE_IMAGES, self.run.seed).within(model.volume.radius), model)
        images, held_out, everything = (
            part.with_noise(noise_gs) for part in (self.images, self.held_out, self.everything)
        )
        return dataclasses.replace(self, images=images, held_out=held_out, everything=everything), model

    def _best(self, what: str, models: list[Model]) -> Model:
        """The model under which held-out images are likeliest."""
        scores = [evidence(self.held_out.within(model.volume.radius), model).mean() for model in models]
        best = int(np.argmax(scores))
        if len(models) > 1:
            told = ", ".join(f"{score:.2f}" for score in scores)
            self.run.log(f"{what.capitalize()}s: held-out evidence {told} nats an image; {what} {best + 1} goes on")
        return models[best]

    def _started(
        self, model: Model, mask_zyx: np.ndarray, name: str, sweeps: int, exponents: tuple[float, ...] = ()
    ) -> Model:
        climb = Climb(self.run, mask_zyx, None if exponents else self.held_out, f"{self.part} {name}".strip())
        model = climb(self.few.within(model.volume.radius), model, sweeps, exponents)
        return splitting.without_small(model, len(self.few))

    @property
    def _sphere(self) -> np.ndarray:
        """What images can tell of a map, whatever is in it."""
        return window(radii(self._box, 3)).numpy()

    @property
    def _box(self) -> int:
        return self.images.dataset.box

    def _noise(self, latent_dim: int, start: int) -> Model:
        """The consensus map, and low-passed noise within its mask."""
        rng = torch.Generator().manual_seed(self.run.seed * 1000 + start)
        mean_zyx = torch.from_numpy(self.consensus.map_zyx).to(self.images.dataset.device)
        noise_jzyx = torch.randn(latent_dim + 1, *mean_zyx.shape, generator=rng).to(mean_zyx.device)
        map_jzyx = cubes.lowpass(noise_jzyx, SHELLS_AT_START) * torch.from_numpy(self.consensus.mask_zyx).to(mean_zyx)
        map_jzyx *= SIZE_AT_START * mean_zyx.norm() / map_jzyx.flatten(1).norm(dim=1)[:, None, None, None]
        map_jzyx[0] = mean_zyx
        volume = LinearVolume.of(map_jzyx, min(FIRST, self.largest), PADDING)
        return Model(volume, self._estep(1, latent_dim))

    def _estep(self, classes: int, latent_dim: int) -> Subspaces:
        contrast = CONTRAST if self.settings.free_contrast else 0.0
        return Subspaces(classes, latent_dim, contrast).to(self.images.dataset.device)

    def climb(self, model: Model, largest: float | None = None) -> Model:
        """Up to a radius, at each until held-out images gain nothing more."""
        largest = self.largest if largest is None else min(largest, self.largest)
        return self._climbed(model, [*self._steps(model.volume.radius, largest), largest])[0]

    def finished(self, model: Model) -> tuple[Model, Dataset]:
        """Up to the largest radius, and there with all images until maps stand still.

        The images with the noise that the model leaves.
        """
        model, images = self._climbed(model, self._steps(model.volume.radius, self.largest))
        every = dataclasses.replace(images, halves=self.everything.halves)
        every, mask_zyx = self._by_noise_of(every, model.at(self.largest, self._box)), self.mask(model)
        climb = Climb(self.run, mask_zyx, None, self.part)
        model = climb(every.within(self.largest), model, self.settings.sweeps)
        model = self._completed(splitting.by_size(model), mask_zyx)
        return model, self._by_noise_of(every, model).dataset

    def _completed(self, model: Model, mask_zyx: np.ndarray) -> Model:
        """On the images' grid; beyond the radius, where nothing tells classes apart, each is the consensus.

        An automatic mask multiplies all maps, which are noise along its rim; one that is given says where maps may be.
        """
        whole, mask = model.on(self._box), torch.from_numpy(mask_zyx).to(model.device)
        map_cjzyx = whole.volume.map_czyx.unflatten(0, (model.classes, -1)).clone()
        shared_zyx = torch.from_numpy(self.consensus.within_zyx).to(model.device)
        if not self.consensus.masked:
            map_cjzyx *= mask
        map_cjzyx[:, 0] += shared_zyx - cubes.lowpass(shared_zyx, model.volume.radius)
        if self.consensus.masked:
            map_cjzyx *= mask > 0
        return whole.with_maps(map_cjzyx.flatten(0, 1))

    def _climbed(self, model: Model, radii: Iterable[float]) -> tuple[Model, Images]:
        """The model, and the images with the noise that it leaves."""
        climb, images = Climb(self.run, self.mask(model), self.held_out, self.part), self.images
        for number, radius in enumerate(radii):
            images = self._by_noise_of(images, model.at(radius, self._box))
            seen = images.some(SEEN_AT_START * 2**number, self.run.seed)
            model = climb(seen.within(radius), model, self.settings.sweeps)
        return model, images

    def _by_noise_of(self, images: Images, model: Model) -> Images:
        """Whitened by the noise that a model leaves in some of them."""
        some = images.some(NOISE_IMAGES, self.run.seed)
        return images.with_noise(remaining_noise(some.within(model.volume.radius), model))

    def _steps(self, start: float, largest: float) -> list[float]:
        """Radii between."""
        return [float(radius) for radius in RADII if start < radius < largest]

    def mask(self, model: Model) -> np.ndarray:
        """The mask given, or one around what the maps hold and where they differ."""
        if self.consensus.masked:
            return self.consensus.mask_zyx
        axis_dzyx = JointSpace.of(model.on(self._box)).volume.map_czyx[1:]
        spread_zyx = (axis_dzyx**2).sum(0).sqrt().cpu().numpy() if len(axis_dzyx) else None
        return masks.automatic(self.consensus.map_zyx, spread_zyx)
