"""A mixture of subspaces: K classes, each with a mean map and q eigenvolumes, by exact expectation-maximisation.

Assumes poses that are known and a molecule that takes some distinct shapes, each of which moves a little: probabilistic
principal component analysers, mixed (Tipping and Bishop, Neural Comput. 11, 443 (1999)), of the maps behind images.
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
from morphem.methods import classify, variability
from morphem.run import Run

REFERENCES = variability.REFERENCES | classify.REFERENCES


@dataclass(frozen=True, kw_only=True)
class Config(LinearSettings):
    """K maps with q eigenvolumes each; the class of every image, and where in its class it is."""

    classes: Annotated[int | None, Parameter(alias=["-K"])] = None
    """How many classes; by default as many as held-out images support."""
    latent_dim: Annotated[int | None, Parameter(alias="--zdim")] = None
    """How many eigenvolumes a class has; by default as many as held-out images support."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for flag, value in (("--classes", self.classes), ("--latent-dim", self.latent_dim)):
            if value is not None and value < 1:
                raise InputError(f"{flag} {value}: expected 1 or more")


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """Classes from a mixture in a wide subspace, each with its principal axes, then finer and finer."""

    def begin(march: March) -> Model:
        if config.classes is None and config.latent_dim is None:
            return choosing.both(march)
        march, wide = march.wide(config.classes, config.latent_dim or max(choosing.BOTH))
        if config.classes is None:
            return choosing.classes(march, wide, config.latent_dim or 0)
        if config.latent_dim is None:
            return choosing.dimensions_of_classes(march, wide, config.classes)
        return march.mixture(wide, config.classes, config.latent_dim)

    dataset, space, found = fit_linear(dataset, config, run, begin)
    return save(run, dataset, REFERENCES, space.volume.cpu(), found.z_nd, found.cov_ndd, found.weight_nc)
