"""The run's method fitted again: to halves of its images, with other seeds, and to images that are simulated.

Axes: b images of a batch, n images, m states, k samples, q latent, z y x maps.
"""

import dataclasses
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphem import methods
from morphem.config import from_plain
from morphem.data.dataset import Dataset, Source
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.evaluation.imaging import ERRORS
from morphem.evaluation.scores import BATCH, Seen
from morphem.evaluation.states import States
from morphem.inference.consensus import residual_noise
from morphem.inference.settings import LinearSettings
from morphem.io.files import replacing
from morphem.io.mrc import read_map
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume, Volume
from morphem.physics import rotations
from morphem.run import Compute, Run

MAPS = ("mean.mrc", "eigenvolume_*.mrc")
OFF = {"halves": False, "refine_poses": "none", "map_every": 0}
"""Settings of a run that a refit does not repeat: poses are those that the run left."""


@dataclass(frozen=True, eq=False)
class Fit:
    """One ensemble: its decoder, the rows it has seen and their z, and any of the images whitened by its own noise."""

    volume: Volume
    z_nq: np.ndarray
    rows: np.ndarray
    images: Dataset
    seed: int = 0

    @cached_property
    def states(self) -> States:
        return States.of(self.volume, self.z_nq, self.seed)

    @cached_property
    def dataset(self) -> Dataset:
        """The images, whitened by what the mean of the states leaves of those that the fit has seen."""
        mean = LinearVolume.of(self.states.volume.map_czyx[:1], self.states.volume.radius)
        return self.images.with_noise(residual_noise(self.images.within(mean.radius), mean, self.rows))

    def seen(self, rows: np.ndarray) -> Seen:
        """Some rows of the images, with the states' maps."""
        return Seen.of(self.states, self.dataset, rows)


def method_of(ensemble: Ensemble) -> tuple[str, Any]:
    """The method that fits such an ensemble to images with poses, and its settings.

    What the run chose by itself (dimensions) is given; a run that found its poses is fitted again at those.
    """
    name, told = ensemble.method, ensemble.config["settings"]
    if methods.finds_poses(name):
        classes = ensemble.weight_nc.shape[1]
        name = told.get("then") or ("classify" if classes > 1 else "backproject")
        kept = {"mask": told.get("mask"), "latent_dim": told.get("latent_dim")}
        told = {key: value for key, value in kept.items() if value is not None}
        told |= {"classes": classes} if classes > 1 else {}
    if not ensemble.latent_dim:
        name = "backproject"
    module = methods.load(name)
    known = {field.name for field in dataclasses.fields(module.Config)}
    settings = from_plain(module.Config, {k: v for k, v in told.items() if k in known}, str(ensemble.folder))
    changes = {key: value for key, value in OFF.items() if key in known}
    chosen = {"latent_dim": dimensions_of(ensemble), "classes": ensemble.weight_nc.shape[1]}
    if issubclass(module.Config, LinearSettings):
        changes |= {key: value for key, value in chosen.items() if getattr(settings, key, 0) is None and value}
    return name, dataclasses.replace(settings, **changes)


def dimensions_of(ensemble: Ensemble) -> int:
    """Of z within each class: what the last sweep of a linear method had, or all there are."""
    sweeps = [record["variances"] for record in ensemble.history if "variances" in record]
    return len(sweeps[-1][0]) if sweeps else ensemble.latent_dim


def refitted(ensemble: Ensemble, images: Dataset, rows: np.ndarray, folder: Path, compute: Compute) -> Fit:
    """The run's method fitted to some rows of images; taken from the folder where just this was done before."""
    name, settings = method_of(ensemble)
    some, run = subset(images, rows, folder.with_name(f"{folder.name}.star")), Run(folder, compute)
    some = dataclasses.replace(some, device=compute.apply())
    if not _done(run, some, name, settings):
        shutil.rmtree(folder, ignore_errors=True)
        methods.fit(name, some, settings, run)
    found = Ensemble.open(folder)
    return Fit(found.volume, found.z_nq, rows, images, compute.seed)


def subset(images: Dataset, rows: np.ndarray, table: Path) -> Dataset:
    """Some of the images, with a table of their own, so that a run on them can be opened again."""
    some, source = images.take(rows), images.source
    with replacing(table) as path:
        dataclasses.replace(some.particles, table=None).write(path)
    return dataclasses.replace(some, source=Source(table, no_ctf=source.no_ctf, contrast=source.contrast))


def _done(run: Run, dataset: Dataset, name: str, settings: Any) -> bool:
    """Whether the folder holds this very fit, finished."""
    from morphem.ensemble import describe

    try:
        return Ensemble.open(run.folder).config == describe(run, dataset, name, settings)
    except InputError:
        return False


def of_run(ensemble: Ensemble, images: Dataset, halves: tuple[np.ndarray, np.ndarray]) -> list[Fit]:
    """The half-sets' fits of a linear method that was fitted with --halves; none of another."""
    if not (ensemble.folder / "maps" / "half1" / "mean.mrc").is_file():
        return []
    fits = []
    for number, rows in enumerate(halves, start=1):
        folder = ensemble.folder / "maps" / f"half{number}"
        paths = [path for name in MAPS for path in sorted(folder.glob(name))]
        maps = torch.from_numpy(np.stack([read_map(path)[0] for path in paths]))
        volume = LinearVolume.of(maps, float(ensemble.volume.radius))
        fits.append(Fit(volume, ensemble.z_nq[rows][:, : len(maps) - 1], rows, images))
    return fits


@torch.inference_mode()
def simulated(fit: Fit, rows: np.ndarray, phi_nj: np.ndarray, width_e: np.ndarray, seed: int) -> Dataset:
    """Some images as they would be of known states, with the fit's noise and with errors of imaging.

    X = σ (X̂(φ, R', t', c) + n), E|n|² = 1: rotations, shifts and contrasts are off by normal errors that the table does
    not know; those of the defocus are left out.
    """
    dataset, volume, model = fit.dataset.take(rows), fit.states.volume, ImageModel()
    rng, packed_nk = (
        np.random.default_rng([seed, 5]),
        torch.empty(len(rows), len(dataset.lattice), dtype=torch.complex64),
    )
    width: dict[str, float] = dict(zip(ERRORS, width_e, strict=True))
    turn_rad = np.array([width[f"rotation_{axis}"] for axis in "xyz"])
    shift = np.array([width["shift_x"], width["shift_y"]])
    for observed in dataset.batches(BATCH):
        n, noise_2 = len(observed), rng.standard_normal((*observed.sample_bk.shape, 2), np.float32)
        turn_b33 = torch.from_numpy(rotations.about(rng.normal(size=(n, 3)) * turn_rad)).float()
        moved_b2 = observed.shift_b2 + torch.from_numpy(rng.normal(size=(n, 2)) * shift).float()
        poses = (turn_b33 @ observed.rotation_b33)[:, None], moved_b2[:, None]
        z_bhq = torch.from_numpy(phi_nj[observed.index_b, None, 1:]).float()
        contrast_b1 = torch.from_numpy(rng.normal(1, width["contrast"], (n, 1))).float()
        clean_bk = contrast_b1 * model.predict(volume, observed, *poses, z_bhq)[:, 0]
        noise_bk = torch.view_as_complex(torch.from_numpy(noise_2)) * 0.5**0.5
        packed_nk[observed.index_b] = (clean_bk + noise_bk) / dataset.whitener(observed.index_b)
    return dataclasses.replace(dataset, packed_nk=packed_nk)
