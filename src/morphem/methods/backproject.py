"""Weighted back-projection: one map from all images at known poses.

Assumes that nothing moves. V(k) = Σ a y / (Σ a² + 1/τ), a = CTF/σ, with the prior's signal power τ per shell taken
from the Fourier shell correlation of two half-maps (Scheres, J. Mol. Biol. 415, 406 (2012)).
"""

from dataclasses import dataclass

import numpy as np

from morphem.data.dataset import Dataset
from morphem.ensemble import Ensemble, save
from morphem.errors import InputError
from morphem.inference.consensus import reconstruct
from morphem.run import Run

REFERENCES = {
    "scheres2012": """@article{scheres2012,
  author = {Scheres, Sjors H. W.},
  title = {A {B}ayesian view on cryo-{EM} structure determination},
  journal = {Journal of Molecular Biology}, volume = {415}, pages = {406--418}, year = {2012},
  doi = {10.1016/j.jmb.2011.11.010}
}""",
}


@dataclass(frozen=True)
class Config:
    """One map from all images; half-maps and their FSC."""

    radius: float | None = None
    """Largest Fourier radius, in Fourier pixels; all up to box/2 - 1 by default."""
    padding: int = 2
    """How much finer than the images the Fourier cube is."""

    def __post_init__(self) -> None:
        if self.padding not in (1, 2, 3, 4):
            raise InputError(f"--padding {self.padding}: expected 1 to 4")


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """The consensus map as an ensemble without latents."""
    consensus = reconstruct(dataset, run.seed, config.padding)
    consensus.write(run.folder / "maps", dataset.pixel_A)
    resolution_A = consensus.fsc.resolution_A
    text = f"{resolution_A:.2f} Å" if resolution_A else "Nyquist"
    run.log(f"Resolution {text} (FSC = 0.143, half-sets of one refinement's poses: not gold standard)")
    volume = consensus.volume(dataset.lattice.radius, config.padding)
    nothing = np.zeros((len(dataset), 0), np.float32)
    return save(run, dataset, REFERENCES, volume, nothing, nothing[:, :, None])
