"""Classification: K maps, and how probable each is for every image, by expectation-maximisation at given poses.

Assumes poses that are known and a molecule that takes few distinct shapes. 3D classification without alignment (Scheres
et al., Nat. Methods 4, 27 (2007)); classes start from the wide subspace that the images span, not from random maps.
"""

from dataclasses import dataclass
from pathlib import Path
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
    "scheres2007": """@article{scheres2007,
  author = {Scheres, Sjors H. W. and Gao, Haixiao and Valle, Mikel and Herman, Gabor T. and Eggermont, Paul P. B. and
    Frank, Joachim and Carazo, Jose-Maria},
  title = {Disentangling conformational states of macromolecules in {3D-EM} through likelihood optimization},
  journal = {Nature Methods}, volume = {4}, pages = {27--29}, year = {2007}, doi = {10.1038/nmeth992}
}""",
}


@dataclass(frozen=True, kw_only=True)
class Config(LinearSettings):
    """K maps and the class of every image."""

    classes: Annotated[int | None, Parameter(alias=["-K"])] = None
    """How many classes; by default as many as held-out images support."""
    init: tuple[Path, ...] = ()
    """Maps (.mrc) that the classes start from, one each, instead of finding them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is not None and self.classes < 1:
            raise InputError(f"--classes {self.classes}: expected 1 or more")
        if self.init and self.classes not in (None, len(self.init)):
            raise InputError(f"--classes {self.classes} --init: maps given: {len(self.init)}; give one for each class")


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """Classes from a mixture in a wide subspace, or from maps, then finer and finer."""

    def begin(march: March) -> Model:
        if config.init:
            return march.of_maps(config.init)
        march, wide = march.wide(config.classes)
        return march.mixture(wide, config.classes, 0) if config.classes else choosing.classes(march, wide)

    dataset, space, found = fit_linear(dataset, config, run, begin)
    return save(run, dataset, REFERENCES, space.volume.cpu(), found.z_nd, found.cov_ndd, found.weight_nc)
