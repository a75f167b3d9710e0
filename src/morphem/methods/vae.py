"""The variational autoencoder: an encoder from an image to z, a coordinate network from z to the map's transform.

Assumes poses that are known, or nearly. Minimises Σ_k |X̃ − X̂(z)|² + β·KL(q(z|X) ‖ N(0, 1)) with z = μ + L·ε (Zhong
et al., Nat. Methods 18, 176 (2021)); 2β is the KL's weight there.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.ensemble import Ensemble, save
from morphem.errors import InputError
from morphem.inference.consensus import start
from morphem.inference.latents import Encoder
from morphem.inference.poses import with_refinement
from morphem.inference.schedules import BetaSchedule
from morphem.inference.settings import LatentSettings
from morphem.inference.sweep import infer
from morphem.inference.training import train
from morphem.inference.views import ImageView, MapView, PictureView
from morphem.methods import backproject
from morphem.models.field import FieldVolume
from morphem.models.image_model import ImageModel
from morphem.run import Run

REFERENCES = backproject.REFERENCES | {
    "zhong2021": """@article{zhong2021,
  author = {Zhong, Ellen D. and Bepler, Tristan and Berger, Bonnie and Davis, Joseph H.},
  title = {{cryoDRGN}: reconstruction of heterogeneous cryo-{EM} structures using neural networks},
  journal = {Nature Methods}, volume = {18}, pages = {176--185}, year = {2021}, doi = {10.1038/s41592-020-01049-4}
}""",
}


@dataclass(frozen=True, kw_only=True)
class Config(LatentSettings):
    """A latent z for every image and a network that turns it into a map."""

    encoder: Literal["map", "image", "conv"] = "map"
    """What sees the image: layers that see it back-projected into the map's frame, or as it is, or convolutions."""
    encoder_radius: float | None = None
    """Up to which Fourier radius; by default 10 for a map, 31 for an image."""
    posterior: Literal["diagonal", "full"] = "diagonal"
    """The covariance of each image's z."""
    beta_schedule: Literal["constant", "linear", "cyclic", "capacity"] = "linear"
    """How beta comes in: at once, rising, rising again and again, or as the price of leaving a rising capacity."""
    beta_epochs: tuple[float, float] = (0.0, 5.0)
    """Between which epochs it rises; at full strength from the start it would shut z before the decoder uses it."""
    beta_start: float = 0.0
    """Where a linear or cyclic rise starts."""
    capacity: float = 0.0
    """With the schedule `capacity`: the divergence, in nats, that each image is given in the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder_radius is not None and not self.encoder_radius >= 1:
            raise InputError(f"--encoder-radius {self.encoder_radius}: expected at least 1 Fourier pixel")
        if (self.beta_schedule == "capacity") != (self.capacity > 0):
            found = f"--beta-schedule {self.beta_schedule} --capacity {self.capacity:g}"
            raise InputError(f"{found}: expected both a schedule `capacity` and a positive number of nats, or neither")
        self._check_rise()

    def _check_rise(self) -> None:
        """Errors: InputError where the rise of β is disordered, or given and has no meaning."""
        first, last = self.beta_epochs
        if not 0 <= first <= last < math.inf:
            raise InputError(f"--beta-epochs {first:g} {last:g}: expected two epochs in order, from 0")
        if not 0 <= self.beta_start < math.inf:
            raise InputError(f"--beta-start {self.beta_start:g}: expected 0 or more")
        default = Config.__dataclass_fields__["beta_epochs"].default
        given = {"--beta-start": self.beta_start != 0, "--beta-epochs": self.beta_epochs != default}
        meant = {"constant": (), "capacity": ("--beta-epochs",)}.get(self.beta_schedule, tuple(given))
        for name in [name for name, is_given in given.items() if is_given and name not in meant]:
            raise InputError(f"{name}: means nothing with --beta-schedule {self.beta_schedule}; leave it out")

    @property
    def schedule(self) -> BetaSchedule:
        return BetaSchedule(self.beta_schedule, self.beta, self.beta_start, self.beta_epochs, self.capacity)


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """Consensus for the noise and the amplitude of every shell, then encoder and decoder together."""
    dataset, consensus = start(dataset, run, config.mask)
    torch.manual_seed(run.seed)
    volume = consensus.network(dataset, config, config.latent_dim, config.from_consensus, config.conditioning)
    shape = config.latent_dim, config.width, config.layers
    encoder = Encoder(_view(dataset, config, volume), *shape, config.schedule, config.posterior == "full")
    estep = with_refinement(encoder, config.refine_poses, len(dataset)).to(dataset.device)
    dataset = train(dataset, estep, volume, config, run)
    z_nq, covariance_nqq = infer(dataset, estep, volume, ImageModel())
    return save(run, estep.refined(dataset), REFERENCES, volume.cpu(), z_nq, covariance_nqq)


def _view(dataset: Dataset, config: Config, volume: FieldVolume) -> ImageView | PictureView | MapView:
    """What the encoder is to see."""
    largest = dataset.lattice.radius
    if config.encoder != "map":
        view = ImageView if config.encoder == "image" else PictureView
        return view(dataset.lattice, min(config.encoder_radius or 31, largest))
    view = MapView(min(config.encoder_radius or 10, largest), volume.gain_s).to(dataset.device)
    view.calibrate(dataset.observed(np.arange(min(500, len(dataset)))), volume, ImageModel())
    return view
