"""Variability: a mean map and q eigenvolumes, z of every image Gaussian, fitted by exact expectation-maximisation.

Assumes poses that are known and motion that a few maps span: V(z) = μ + U z with z ~ N(0, 1). This is probabilistic
principal component analysis (Tipping and Bishop, Neural Comput. 11, 443 (1999)) of the map behind its images, as in 3D
variability analysis (Punjani and Fleet, J. Struct. Biol. 213, 107702 (2021)), with the marginal likelihood exact.
"""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from morphem.data.dataset import Dataset
from morphem.ensemble import Ensemble, save
from morphem.errors import InputError
from morphem.inference import choosing
from morphem.inference.expectation import Model
from morphem.inference.fitting import fit_linear
from morphem.inference.marching import March
from morphem.inference.settings import LinearSettings
from morphem.methods import backproject
from morphem.run import Run

REFERENCES = backproject.REFERENCES | {
    "tipping1999": """@article{tipping1999,
  author = {Tipping, Michael E. and Bishop, Christopher M.},
  title = {Mixtures of probabilistic principal component analyzers},
  journal = {Neural Computation}, volume = {11}, pages = {443--482}, year = {1999}, doi = {10.1162/089976699300016728}
}""",
    "punjani2021": """@article{punjani2021,
  author = {Punjani, Ali and Fleet, David J.},
  title = {{3D} variability analysis: Resolving continuous flexibility and discrete heterogeneity from single particle
    cryo-{EM}},
  journal = {Journal of Structural Biology}, volume = {213}, pages = {107702}, year = {2021},
  doi = {10.1016/j.jsb.2021.107702}
}""",
}


@dataclass(frozen=True, kw_only=True)
class Config(LinearSettings):
    """A mean map and eigenvolumes, and how much of each every image has."""

    latent_dim: Annotated[int | None, Parameter(alias="--zdim")] = None
    """How many eigenvolumes; by default as many as held-out images support."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim is not None and self.latent_dim < 1:
            raise InputError(f"--latent-dim {self.latent_dim}: expected 1 or more; `backproject` has none")


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """The subspace that explains most, from several starts, finer and finer."""

    def begin(march: March) -> Model:
        return march.subspace(config.latent_dim) if config.latent_dim else choosing.dimensions(march)

    dataset, space, found = fit_linear(dataset, config, run, begin)
    return save(run, dataset, REFERENCES, space.volume.cpu(), found.z_nd, found.cov_ndd)
