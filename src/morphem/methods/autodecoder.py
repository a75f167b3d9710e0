"""The autodecoder: a table of z, one row an image, and a coordinate network from z to the map's transform.

Assumes poses that are known, or nearly. Minimises Σ_k |X̃ − X̂(z)|² + β·½|z|² over the network and every row (Levy et
al., Nat. Methods (2025), at given poses); the covariance of z is Laplace's, at the end.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from morphem.data import latents
from morphem.data.dataset import Dataset
from morphem.data.particles import Particles
from morphem.ensemble import Ensemble, save
from morphem.errors import InputError
from morphem.inference.consensus import start
from morphem.inference.gradient import images_at_once
from morphem.inference.latents import Table
from morphem.inference.poses import with_refinement
from morphem.inference.settings import LatentSettings
from morphem.inference.sweep import infer
from morphem.inference.training import train
from morphem.methods import backproject
from morphem.models.image_model import ImageModel
from morphem.run import Run

REFERENCES = backproject.REFERENCES | {
    "levy2025": """@article{levy2025,
  author = {Levy, Axel and Raghu, Rishwanth and Feathers, J. Ryan and Grzadkowski, Michal and others},
  title = {{CryoDRGN-AI}: neural ab initio reconstruction of challenging cryo-{EM} and cryo-{ET} datasets},
  journal = {Nature Methods}, year = {2025}
}""",
}


@dataclass(frozen=True, kw_only=True)
class Config(LatentSettings):
    """A row of z for every image and a network that turns it into a map."""

    latent_rate: float = 0.5
    """Adam's step of the table."""
    init: Path | None = None
    """z to start from (.npy, .pkl or .parquet, a row an image); N(0, 0.1²) by default."""

    def check(self, particles: Particles) -> None:
        super().check(particles)
        self.first_z(len(particles))

    def first_z(self, images: int) -> torch.Tensor:
        """z of every image before training. Errors: InputError where `init` is not made of such rows."""
        if self.init is None:
            return 0.1 * torch.randn(images, self.latent_dim)
        z_nq = latents.read(self.init, images)
        if z_nq.shape[1] != self.latent_dim:
            raise InputError(f"{self.init}: {z_nq.shape[1]} numbers a row, but --latent-dim {self.latent_dim}")
        return torch.from_numpy(z_nq)


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """Consensus for the noise and the amplitude of every shell, then table and decoder together."""
    dataset, consensus = start(dataset, run, config.mask)
    torch.manual_seed(run.seed)
    volume = consensus.network(dataset, config, config.latent_dim, config.from_consensus, config.conditioning)
    table = Table(config.first_z(len(dataset)), config.beta, config.latent_rate)
    estep = with_refinement(table, config.refine_poses, len(dataset)).to(dataset.device)
    dataset = train(dataset, estep, volume, config, run)
    for observed in estep.refined(dataset).batches(images_at_once(len(dataset.lattice))):
        table.measure(observed, volume, ImageModel())
    z_nq, covariance_nqq = infer(dataset, estep, volume, ImageModel())
    return save(run, estep.refined(dataset), REFERENCES, volume.cpu(), z_nq, covariance_nqq)
