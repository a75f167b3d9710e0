"""The variational autoencoder: an encoder from an image to z, a coordinate network from z to the map's transform.

Assumes known poses. Minimises Σ_k |X̃ − X̂(z)|² + β·KL(q(z|X) ‖ N(0, 1)) with z = μ + s·ε (Zhong et al., Nat. Methods
18, 176 (2021)); 2β is the KL's weight there.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from cyclopts import Parameter

from morphem.data.dataset import Dataset
from morphem.ensemble import Ensemble, save
from morphem.errors import InputError
from morphem.inference.consensus import reconstruct, residual_noise
from morphem.inference.latents import Encoder, ImageView, MapView
from morphem.inference.sweep import infer
from morphem.inference.training import NetworkSettings, train
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


WARMUP_EPOCHS = 5
"""β rises from 0 over so many epochs: at full strength from the start it would shut z before the decoder uses it."""


@dataclass(frozen=True, kw_only=True)
class Config(NetworkSettings):
    """A latent z for every image and a network that turns it into a map."""

    latent_dim: Annotated[int, Parameter(alias="--zdim")] = 8
    """Dimensions of z."""
    beta: float = 1.0
    """Weight of the KL divergence; 1 is the evidence lower bound."""
    from_consensus: bool = True
    """The decoder adds to the consensus map, and the encoder sees what that map leaves; without it both start blank."""
    encoder: Literal["map", "image"] = "map"
    """What the encoder sees: the image back-projected into the map's frame at its pose, or the image as it is."""
    encoder_radius: float | None = None
    """Up to which Fourier radius; by default 10 for a map, 31 for an image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim < 1:
            raise InputError(
                f"--latent-dim {self.latent_dim}: expected at least 1 (one map without z is `fit backproject`)"
            )
        if not 0 <= self.beta < math.inf:
            raise InputError(f"--beta {self.beta}: expected 0 or more")
        if self.encoder_radius is not None and not self.encoder_radius >= 1:
            raise InputError(f"--encoder-radius {self.encoder_radius}: expected at least 1 Fourier pixel")


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """Consensus for the noise and the amplitude of every shell, then encoder and decoder together."""
    consensus = reconstruct(dataset, run.seed)
    consensus.write(run.folder / "maps", dataset.pixel_A)
    one = consensus.volume(dataset.lattice.radius).to(dataset.device)
    dataset = dataset.with_noise(residual_noise(dataset, one))

    torch.manual_seed(run.seed)
    shape = (config.latent_dim, config.width, config.layers, config.encoding, config.from_consensus)
    volume = FieldVolume(dataset.box, dataset.lattice.radius, *shape).to(dataset.device)
    volume.start_from(one)
    shape = (config.latent_dim, config.width, config.layers)
    encoder = Encoder(_view(dataset, config, volume), *shape, config.beta, warmup=WARMUP_EPOCHS * len(dataset))
    encoder.to(dataset.device)

    dataset = train(dataset, encoder, volume, config, run)
    z_nq, covariance_nqq = infer(dataset, encoder, volume, ImageModel())
    if z_nq.var(axis=0).max() < 0.01:
        run.notice("no dimension of z is used: all images have one shape here; train longer or lower --beta")
    volume.dtype = torch.float32
    return save(run, dataset, REFERENCES, volume.cpu(), z_nq, covariance_nqq)


def _view(dataset: Dataset, config: Config, volume: FieldVolume) -> ImageView | MapView:
    """What the encoder is to see."""
    largest = dataset.lattice.radius
    if config.encoder == "image":
        return ImageView(dataset.lattice, min(config.encoder_radius or 31, largest))
    view = MapView(min(config.encoder_radius or 10, largest), volume.gain_s).to(dataset.device)
    view.calibrate(dataset.observed(np.arange(min(500, len(dataset)))), volume, ImageModel())
    return view
