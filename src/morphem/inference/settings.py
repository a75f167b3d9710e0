"""Settings that methods share: flags, YAML keys and documentation rows. Nothing heavy is imported."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from morphem.data.particles import Particles
from morphem.errors import InputError

AT_LEAST_1 = ("epochs", "batch_size", "width", "layers", "latent_dim")
AT_LEAST_0 = ("march_epochs", "map_every", "beta")
FEWEST_IMAGES = 20
"""That halves of halves, and images held out of those, can be made of."""
POSITIVE = ("learning_rate", "checkpoint_minutes", "latent_rate")
REFINE = Literal["none", "shift", "rotation", "both"]
"""Which part of the given poses."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Settings that all network methods share."""

    epochs: Annotated[int, Parameter(alias=["-n", "--num-epochs"])] = 20
    """Passes over the images."""
    batch_size: Annotated[int, Parameter(alias="-b")] = 16
    """Images a step."""
    learning_rate: Annotated[float | None, Parameter(alias="--lr")] = None
    """Adam's step; by default 5e-4 · √(batch size / 16)."""
    width: int = 256
    """Width of the networks' layers."""
    layers: int = 3
    """Hidden residual layers of each network."""
    encoding: Literal["geometric", "geometric_full", "low", "no_high", "linear", "gaussian", "none"] = "geometric"
    """Positional encoding of the decoder."""
    radius: float | None = None
    """Largest Fourier radius, in Fourier pixels; all up to box/2 - 1 by default."""
    march_epochs: int = 0
    """Epochs in which the radius rises from a half to the whole: faster, and a little less exact in few epochs."""
    refine_poses: REFINE = "none"
    """Which part of the poses to refine by gradient, from the second epoch."""
    mask: Path | None = None
    """Solvent mask (.mrc, 0 to 1): every map but the raw half-maps is multiplied by it."""
    held_out: float = 0.01
    """Share of the images that is not trained on, to see whether training has converged; at most 1,000 images."""
    checkpoint_minutes: float = 15.0
    """Minutes between checkpoints within an epoch; one is also written after every epoch."""

    def __post_init__(self) -> None:
        for names, lowest in ((AT_LEAST_1, 1), (AT_LEAST_0, 0)):
            for name in names:
                self._refuse(name, lambda value, lowest=lowest: value < lowest, f"{lowest} or more")
        for name in POSITIVE:
            self._refuse(name, lambda value: not 0 < value < math.inf, "a positive number")
        self._refuse("held_out", lambda share: not 0 <= share <= 0.5, "0 to 0.5")

    def _refuse(self, name: str, wrong, expected: str) -> None:
        """Errors: InputError where the setting exists, is given, and is wrong."""
        value = getattr(self, name, None)
        if value is not None and (wrong(value) or value != value):
            raise InputError(f"--{name.replace('_', '-')} {value}: expected {expected}")

    def check(self, particles: Particles) -> None:
        """Errors: InputError for what so many images of this box cannot give."""
        map_box = getattr(self, "map_box", None)
        if map_box is not None and map_box > particles.box:
            raise InputError(f"--map-box {map_box}: the images have {particles.box} pixels; give as many or fewer")

    @property
    def step(self) -> float:
        return self.learning_rate or 5e-4 * (self.batch_size / 16) ** 0.5

    def radius_at(self, epoch: int, largest: float) -> float:
        """Of the samples that count in an epoch (from 1)."""
        share = 0.5 + 0.5 * (epoch - 1) / max(self.march_epochs, 1)
        return largest if epoch > self.march_epochs else max(min(largest, 8.0), float(math.floor(largest * share)))


@dataclass(frozen=True, kw_only=True)
class LatentSettings(NetworkSettings):
    """Settings of network methods with a latent."""

    latent_dim: Annotated[int, Parameter(alias="--zdim")] = 8
    """Dimensions of z."""
    beta: float = 1.0
    """Weight of the latent's prior; 1 is the evidence lower bound, and half of what cryoDRGN calls beta."""
    conditioning: Literal["input", "film"] = "input"
    """How z enters the decoder: as an input, or as a scale and shift of every layer."""
    from_consensus: bool = True
    """The decoder adds to the consensus map; without it it starts blank."""
    map_every: int = 5
    """Write maps at the centres of 20 clusters every so many epochs and after the last; 0: never."""
    map_box: int | None = None
    """Box of those maps in pixels, Fourier-cropped; the images' own by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta == math.inf:
            raise InputError("--beta inf: expected a number")
        if self.map_box is not None and (self.map_box < 2 or self.map_box % 2):
            raise InputError(f"--map-box {self.map_box}: expected an even number of pixels")


@dataclass(frozen=True, kw_only=True)
class LinearSettings:
    """Settings that the methods of linear volumes share."""

    radius: float | None = None
    """Largest Fourier radius, in Fourier pixels; by default where half-maps of the consensus agree (FSC 0.143)."""
    mask: Path | None = None
    """Solvent mask (.mrc, 0 to 1); by default one is made around the maps and where they differ."""
    free_contrast: Annotated[bool, Parameter(negative="")] = False
    """Every image has a contrast of its own, which is integrated out."""
    refine_poses: REFINE = "none"
    """Which part of the poses to refine, about those given; how far they may go the images say."""
    halves: Annotated[bool, Parameter(negative="")] = False
    """Fit two half-sets that share nothing; every image keeps the latents of its own, brought into one frame."""
    starts: int = 3
    """Random starts; the one that explains held-out images best goes on."""
    sweeps: int = 10
    """Most passes over the images at each radius; fewer where held-out images gain nothing more."""
    held_out: float = 0.1
    """Share of the images that is held out to choose between starts; they join for the last passes."""

    def __post_init__(self) -> None:
        for name in ("starts", "sweeps"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: expected 1 or more")
        if not 0 < self.held_out <= 0.5:
            raise InputError(f"--held-out {self.held_out}: expected a share above 0, up to 0.5")

    def check(self, particles: Particles) -> None:
        """Errors: InputError for fewer images than can be split, or more classes or dimensions than they can tell."""
        images = len(particles)
        if images < FEWEST_IMAGES:
            raise InputError(f"{images} images are too few to split and to hold some out; give {FEWEST_IMAGES} or more")
        for name in ("classes", "latent_dim"):
            asked = getattr(self, name, None) or 0
            if asked > max(images // 10, 1):
                raise InputError(
                    f"--{name.replace('_', '-')} {asked}: {images} images are too few; give at least ten each"
                )
