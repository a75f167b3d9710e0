"""Weighted back-projection: one map from all images at known poses.

Assumes that nothing moves. V(k) = C(|k|) Σ a y / (Σ a² + T(|k|)), a = CTF/σ; C and T filter by the Fourier shell
correlation of two half-maps (Scheres, J. Mol. Biol. 415, 406 (2012)), and C brings shells to scale.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphem.data.dataset import Dataset
from morphem.ensemble import Ensemble, save
from morphem.errors import InputError
from morphem.inference.consensus import Consensus, reconstruct
from morphem.inference.relocating import with_map
from morphem.inference.settings import REFINE
from morphem.physics.rotations import point_group, refuse_other_groups
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
    mask: Path | None = None
    """Solvent mask (.mrc, 0 to 1) for the FSC; the map is multiplied by it, the half-maps are not."""
    refine_poses: REFINE = "none"
    """Which part of the poses to refine against the map; how far they may go the images say."""
    symmetry: str = "C1"
    """Point group of the map about z: C1, C2, …, D2, … or O. The images are used once for every element of it."""

    def __post_init__(self) -> None:
        refuse_other_groups(self.symmetry)
        if self.padding not in (1, 2, 3, 4):
            raise InputError(f"--padding {self.padding}: expected 1 to 4")


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """The consensus map as an ensemble without latents."""
    symmetry_g33 = point_group(config.symmetry)

    def remade(placed: Dataset) -> Consensus:
        return reconstruct(placed, run.seed, config.padding, config.mask, symmetry_g33)

    if config.refine_poses == "none":
        consensus = remade(dataset)
    else:
        dataset, consensus = with_map(dataset, remade, config.refine_poses, run)
    consensus.write(run.folder / "maps", dataset.pixel_A)
    run.log(consensus.fsc.summary)
    volume = consensus.volume(dataset.lattice.radius, config.padding)
    nothing = np.zeros((len(dataset), 0), np.float32)
    return save(run, dataset, REFERENCES, volume, nothing, nothing[:, :, None])
