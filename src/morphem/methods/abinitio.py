"""Ab initio: a map and the pose of every image from nothing, then any method of fixed poses on top.

Assumes that the images show one molecule, or a few (--classes). Voxel maps at low resolution meet every image in all
orientations and shifts at once, as one matrix product; random starts draw views in balance (Cuturi, NIPS 26 (2013)),
poses end off the grid. Stands where stochastic gradient descent (Punjani et al., Nat. Methods 14, 290 (2017)) does.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter

from morphem.data.dataset import Dataset
from morphem.data.particles import Particles
from morphem.ensemble import Ensemble, cite, save
from morphem.errors import InputError
from morphem.inference import heldout, outcome
from morphem.inference.abinitio import best_start, refined
from morphem.inference.refreshing import until_at_rest
from morphem.inference.starts import LONG, SHORT, Setting
from morphem.methods import backproject
from morphem.run import Run

FINDS_POSES = True
PARTICLE = 0.6
"""Of the box: the particle's diameter where it is not given."""
MOVING = ("variability", "mixture", "vae", "autodecoder")
FEWEST = 50
"""Images of a class."""
REFERENCES = backproject.REFERENCES | {
    "punjani2017": """@article{punjani2017,
  author = {Punjani, Ali and Rubinstein, John L. and Fleet, David J. and Brubaker, Marcus A.},
  title = {{cryoSPARC}: algorithms for rapid unsupervised cryo-{EM} structure determination},
  journal = {Nature Methods}, volume = {14}, pages = {290--296}, year = {2017}, doi = {10.1038/nmeth.4169}
}""",
    "cuturi2013": """@inproceedings{cuturi2013,
  author = {Cuturi, Marco}, title = {Sinkhorn distances: lightspeed computation of optimal transport},
  booktitle = {Advances in Neural Information Processing Systems}, volume = {26}, year = {2013}
}""",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A map, or some, and the pose of every image, from nothing."""

    radius: float | None = None
    """Largest Fourier radius, in Fourier pixels; all up to box/2 - 1 by default."""
    mask: Path | None = None
    """Solvent mask (.mrc, 0 to 1) of the last map; it has no place before there are poses."""
    particle_diameter: float | None = None
    """The particle's largest diameter in Å; 0.6 of the box by default."""
    shift: float = 0.05
    """Largest shift of a particle that is searched, as a share of the box; refinement may go further."""
    starts: int = 4
    """Random starts; the one that explains held-out images best goes on. Eight more where no two agree."""
    schedule: Literal["default", "short"] = "default"
    """Sweeps of a start: short ones take half, and fail more often on few images or preferred views."""
    classes: Annotated[int, Parameter(alias=["-K"])] = 1
    """How many different molecules or states are told apart from the start."""
    then: Literal["variability", "classify", "mixture", "field", "vae", "autodecoder"] | None = None
    """A method that goes on from the poses found, with its own default settings."""
    refreshes: int = 6
    """Most rounds in which poses are found again with maps of several states, where a method with z goes on."""
    latent_dim: Annotated[int | None, Parameter(alias=["--zdim"])] = None
    """Dimensions of z of the method that goes on; its own default where it is not given."""
    held_out: float = 0.1
    """Share of the images that chooses between starts; they join for refinement."""

    def __post_init__(self) -> None:
        for name, least in (("starts", 1), ("classes", 1), ("refreshes", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} {getattr(self, name)}: expected {least} or more")
        if not 0 <= self.shift <= 0.25:
            raise InputError(f"--shift {self.shift}: expected a share of the box from 0 to 0.25")
        if not 0 < self.held_out <= 0.5:
            raise InputError(f"--held-out {self.held_out}: expected a share above 0, up to 0.5")
        if self.particle_diameter is not None and not self.particle_diameter > 0:
            raise InputError(f"--particle-diameter {self.particle_diameter:g}: expected a positive number of Å")
        if self.latent_dim is not None and self.then is None:
            raise InputError("--latent-dim: belongs to a method that goes on from the poses; name it with --then")

    def check(self, particles: Particles) -> None:
        """Errors: InputError for images that are too few, of several pixel sizes, or smaller than the particle."""
        images, pixel_A_n = len(particles), particles.pixel_A_n
        if images < FEWEST * self.classes:
            raise InputError(f"{images} images are too few to find poses from; give {FEWEST * self.classes} or more")
        if np.ptp(pixel_A_n) > 1e-3 * pixel_A_n[0]:
            raise InputError(
                "the images have several pixel sizes; bring them to one (`morphem downsample`) or split them"
            )
        side_A = particles.box * pixel_A_n[0]
        if self.particle_diameter is not None and self.particle_diameter > side_A:
            raise InputError(
                f"--particle-diameter {self.particle_diameter:g}: is larger than the box, {side_A:g} Å; give less"
            )


def fit(dataset: Dataset, config: Config, run: Run) -> Ensemble:
    """Starts, the best of them refined; then the consensus, or another method at the poses found.

    Errors: NoResultError, after everything is written, where the evidence speaks against the result.
    """
    setting = _setting(dataclasses.replace(dataset, device="cpu"), config, run)
    start, apart_deg = best_start(setting, SHORT if config.schedule == "short" else LONG, config.starts, run)
    state = refined(setting, start, run)
    if config.then in MOVING and config.classes == 1:
        state = until_at_rest(setting, state, config.refreshes, run)
    placed = state.candidates.placed(dataset)
    if config.classes > 1 and not config.then:
        here = dataclasses.replace(placed, device="cpu")
        space, found = outcome.by_class(here, state.candidates, config.classes, config.mask, run)
        ensemble = save(run, here, REFERENCES, space.volume, found.z_nd, found.cov_ndd, found.weight_nc)
    else:
        ensemble = _going_on(placed, config, run)
    outcome.write_mirror(placed, run.folder)
    outcome.judge(setting, start, apart_deg, state, run)
    return ensemble


def _setting(dataset: Dataset, config: Config, run: Run) -> Setting:
    """The search computes on the CPU, whatever goes on from it."""
    diameter_A = config.particle_diameter
    if diameter_A is None:
        diameter_A = PARTICLE * dataset.box * dataset.pixel_A
        run.notice(f"--particle-diameter is not given: {diameter_A:.0f} Å, {PARTICLE:g} of the box, is assumed")
    row_n, held_out_n = heldout.split(np.arange(len(dataset)), config.held_out, run.seed, len(dataset))
    shape = 0.5 * diameter_A / dataset.pixel_A, config.shift * dataset.box
    return Setting(dataset, row_n, held_out_n, *shape, run.seed, config.classes)


def _going_on(placed: Dataset, config: Config, run: Run) -> Ensemble:
    """Another method at the poses found; back-projection where none is asked for."""
    from morphem.methods import load

    module = load(config.then or "backproject")
    classes = config.classes if config.classes > 1 else None
    asked = {"radius": config.radius, "mask": config.mask, "latent_dim": config.latent_dim, "classes": classes}
    known = {field.name for field in dataclasses.fields(module.Config)}
    settings = {name: value for name, value in asked.items() if value is not None and name in known}
    ensemble = module.fit(placed, module.Config(**settings), run)
    cite(run.folder, REFERENCES | module.REFERENCES)
    return ensemble
