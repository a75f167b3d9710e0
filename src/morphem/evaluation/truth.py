"""A run against the known truth: maps, latents, classes. What the truth does not hold is scored None, never 0.

Axes: n images, q latent, t true coordinates, s states, v voxels, z y x maps.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from morphem.config import read_yaml
from morphem.data.particles import Particles
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.evaluation.fsc import auc, benchmark_fsc
from morphem.evaluation.latents import angle_error, class_agreement, clusters, neighbourhood_similarity
from morphem.evaluation.poses import Place, TruePoses, pose_scores
from morphem.io import npy
from morphem.io.mrc import read_map
from morphem.physics.fsc import fsc, resolution
from morphem.physics.masks import around

SCORED = 100
"""Per-image scores are those of this many images, evenly spaced."""
VOXELS = 20_000
"""Distances between true maps are taken over at most this many voxels of the mask, drawn at random."""


@dataclass(frozen=True, eq=False)
class Truth:
    """A truth folder, opened: the state of each image (−1: junk), the states' maps, the motion where known."""

    folder: Path
    state_n: np.ndarray
    maps: tuple[Path, ...]
    angle_deg_n: np.ndarray | None
    """The angle of a hinge, per image; None where the truth is no circle."""

    @classmethod
    def open(cls, folder: Path | str) -> "Truth":
        """Read labels.npy, vols/ and, where they exist, truth.parquet, simulation.yaml, mask.mrc.

        Errors: InputError where labels.npy is missing or names a state without a map.
        """
        folder = Path(folder)
        if not (folder / "labels.npy").exists():
            raise InputError(f"{folder}: is no truth folder (no labels.npy); give what `morphem simulate` wrote")
        state_n = npy.read(folder / "labels.npy", "a truth folder's labels")
        maps = tuple(sorted((folder / "vols").glob("*.mrc")))
        if state_n.max(initial=-1) >= len(maps):
            raise InputError(f"{folder}: labels.npy names state {state_n.max()}, vols/ has {len(maps)} maps; add them")
        if not np.any(state_n >= 0):
            raise InputError(f"{folder}: labels.npy names no state, only junk (-1); give a truth with particles")
        return cls(folder, state_n, maps, _hinge_angle(folder, state_n, len(maps)))

    def rows(self, index_n: np.ndarray) -> "Truth":
        """The truth of some images, in the order given."""
        angle = self.angle_deg_n
        return Truth(self.folder, self.state_n[index_n], self.maps, None if angle is None else angle[index_n])

    def map(self, state: int) -> np.ndarray:
        """The true map of a state (z, y, x)."""
        return read_map(self.maps[state])[0]

    @cached_property
    def mask_zyx(self) -> np.ndarray:
        """mask.mrc, else a soft mask around the mean true map: above 2 % of its maximum after a blur of 3 pixels."""
        if self.has_mask:
            return read_map(self.folder / "mask.mrc")[0]
        return around(self.mean_zyx)

    @cached_property
    def mean_zyx(self) -> np.ndarray:
        """The mean of the true maps."""
        return sum(map(self.map, range(1, len(self.maps))), start=self.map(0)) / len(self.maps)

    @property
    def has_mask(self) -> bool:
        return (self.folder / "mask.mrc").is_file()

    def coordinates(self, seed: int) -> np.ndarray:
        """Where each image truly lies, (n, t): on a hinge's circle, else such that distances are those of true maps."""
        if self.angle_deg_n is not None:
            angle_n = np.deg2rad(self.angle_deg_n)
            return np.stack([np.cos(angle_n), np.sin(angle_n)], axis=1)
        voxels = np.flatnonzero(self.mask_zyx > 0.5)
        voxels = np.random.default_rng(seed).permutation(voxels)[:VOXELS]
        map_sv = np.stack([self.map(state).ravel()[voxels] for state in range(len(self.maps))])
        left_st, size_t, _ = np.linalg.svd(map_sv - map_sv.mean(0), full_matrices=False)
        return (left_st * size_t)[self.state_n]


def _hinge_angle(folder: Path, state_n: np.ndarray, states: int) -> np.ndarray | None:
    """The motion column of a simulated hinge, else 360°·state/states; None for every other truth."""
    settings = folder / "simulation.yaml"
    told = read_yaml(settings) if settings.is_file() else {}
    if told.get("kind") != "hinge" or told.get("atoms"):
        return None
    if (folder / "truth.parquet").is_file():
        return pd.read_parquet(folder / "truth.parquet", columns=["motion"])["motion"].to_numpy(float)
    return 360.0 * state_n / states


def evaluate(ensemble: Ensemble, truth: Path | str, decoder: str = "model", seed: int = 0) -> dict[str, Any]:
    """Every score of a run against a truth folder, ready for JSON; None where the run or the truth has no such thing.

    Errors: InputError where the truth's images or maps are not those of the run.
    """
    start = time.monotonic()
    whole = Truth.open(truth)
    row_n, notes = _matched(ensemble, whole)
    _check_maps(ensemble, whole)
    real = np.flatnonzero(whole.state_n[row_n] >= 0)
    known, z_nq = whole.rows(row_n[real]), ensemble.z_nq[real]
    label_n = ensemble.weight_nc[real].argmax(1) if ensemble.weight_nc.shape[1] > 1 else None
    if not whole.has_mask:
        notes.append("the truth has no mask.mrc: masked scores use a mask made from the mean true map")
    if len(real) < len(row_n):
        notes.append(f"{len(row_n) - len(real)} junk images are left out")
    poses, place = pose_scores(ensemble, TruePoses.read(known.folder, row_n[real]), real, known.state_n, label_n)
    scores = _map_scores(ensemble, known, z_nq, decoder, place) | _latent_scores(known, z_nq, label_n, seed, notes)
    run = {"run": str(ensemble.folder), "truth": str(truth), "method": ensemble.method, "decoder": decoder}
    seconds = round(time.monotonic() - start, 2)
    return run | scores | poses | {"images": len(real), "seed": seed, "seconds": seconds, "notes": notes}


def _matched(ensemble: Ensemble, truth: Truth) -> tuple[np.ndarray, list[str]]:
    """The truth's row of each image of the run, by place in the stack and the stack's name, else by order."""
    table = Particles.read(truth.folder / "particles.star", no_ctf=True, require_poses=False)
    if len(table) != len(truth.state_n):
        raise InputError(
            f"{truth.folder}: particles.star holds {len(table)} images, labels.npy {len(truth.state_n)}; give both"
        )
    place = {name: row for row, name in enumerate(_short_names(table))}
    rows = [place.get(name, -1) for name in _short_names(ensemble.poses)]
    if min(rows) >= 0:
        return np.array(rows), []
    if len(ensemble) == len(truth.state_n):
        return np.arange(len(ensemble)), ["image names differ from the truth's: rows are matched by their order"]
    raise InputError(
        f"{truth.folder}: holds {len(truth.state_n)} images under other names, the run {ensemble.folder} has"
        f" {len(ensemble)}; give the truth of the run's own images"
    )


def _short_names(particles: Particles) -> list[str]:
    """`000001@stack.mrcs`, without the stack's folder."""
    pairs = (name.split("@", 1) for name in particles.image_names)
    return [f"{int(number)}@{Path(stack).name}" for number, stack in pairs]


def _check_maps(ensemble: Ensemble, truth: Truth) -> None:
    map_zyx, pixel_A = read_map(truth.maps[0])
    same = len(map_zyx) == ensemble.box and (pixel_A == 0 or abs(pixel_A / ensemble.pixel_A - 1) < 1e-3)
    if not same:
        raise InputError(
            f"{truth.maps[0]}: is {len(map_zyx)} pixels of {pixel_A:g} Å, the maps of {ensemble.folder} are"
            f" {ensemble.box} of {ensemble.pixel_A:g} Å; give a truth at the run's size"
        )


def _map_scores(ensemble: Ensemble, truth: Truth, z_nq: np.ndarray, decoder: str, place: Place) -> dict[str, Any]:
    """FSC areas: of each scored image's map, of each state's, and of the consensus."""
    n = len(z_nq)
    pick = np.unique(np.arange(SCORED) * n // SCORED)
    states, medoids = _medoids(truth.state_n, z_nq)

    def decoded(row: np.ndarray) -> Iterable[np.ndarray]:
        if ensemble.latent_dim:
            return map(place, row, ensemble.decode(z_nq[row], decoder))
        return repeat(place(0, next(ensemble.decode(np.zeros((1, 0)), decoder))), len(row))

    image = _areas(decoded(pick), truth, truth.state_n[pick])
    state = _areas(decoded(medoids), truth, states) if ensemble.latent_dim else None
    consensus_zyx = place(0, ensemble.consensus_zyx)
    consensus = _areas(repeat(consensus_zyx, len(pick)), truth, truth.state_n[pick])
    areas = {"per_image_auc": image, "per_conformation_auc": state, "consensus_auc": consensus}
    reached_A = resolution(fsc(consensus_zyx * truth.mask_zyx, truth.mean_zyx * truth.mask_zyx), ensemble.pixel_A, 0.5)
    scores = {key: value for name, area in areas.items() for key, value in _summary(name, area).items()}
    return scores | {"consensus_resolution_A": reached_A}


def _areas(maps: Iterable[np.ndarray], truth: Truth, states: np.ndarray) -> np.ndarray:
    """(n, 3): AUC against the true map of the state: unmasked, masked, unmasked with negative values counted as 0."""
    return np.array([_area(m, truth.map(state), truth.mask_zyx) for m, state in zip(maps, states, strict=True)])


def _area(map_zyx: np.ndarray, true_zyx: np.ndarray, mask_zyx: np.ndarray) -> tuple[float, float, float]:
    fsc_s = benchmark_fsc(map_zyx, true_zyx)
    masked_s = benchmark_fsc(map_zyx * mask_zyx, true_zyx * mask_zyx)
    return auc(fsc_s), auc(masked_s), auc(fsc_s, clip=True)


def _summary(name: str, area_n3: np.ndarray | None) -> dict[str, float | None]:
    """Means of the three kinds; deviation, median and worst decile of the unmasked one."""
    keys = [name, f"{name}_masked", f"{name}_clipped", f"{name}_std", f"{name}_median", f"{name}_worst_decile"]
    if area_n3 is None:
        return dict.fromkeys(keys)
    plain_n = area_n3[:, 0]
    values = [*area_n3.mean(0), plain_n.std(), np.median(plain_n), np.quantile(plain_n, 0.1)]
    return dict(zip(keys, map(float, values), strict=True))


def _medoids(state_n: np.ndarray, z_nq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States that have images, and for each the image whose z is nearest to the mean z of the state."""
    states = np.unique(state_n)
    mean_sq = np.stack([z_nq[state_n == state].mean(0) for state in states])
    return states, np.array([((z_nq - mean_q) ** 2).sum(1).argmin() for mean_q in mean_sq])


def _latent_scores(
    truth: Truth, z_nq: np.ndarray, label_n: np.ndarray | None, seed: int, notes: list[str]
) -> dict[str, float | None]:
    """Classes (the run's own, else k-means of as many as true states), neighbourhoods and the motion.

    All None for a run without latents or a truth of one state.
    """
    if not z_nq.shape[1]:
        notes.append("the run has no latents: only maps are scored")
        return dict.fromkeys(LATENT_SCORES)
    if len(np.unique(truth.state_n)) == 1:
        notes.append("the truth has one state: only maps are scored")
        return dict.fromkeys(LATENT_SCORES)
    if label_n is None:
        label_n = clusters(z_nq, len(np.unique(truth.state_n)), seed)
    scores = (
        *class_agreement(truth.state_n, label_n),
        *_neighbours(truth, z_nq, seed, notes),
        *_motion(truth, z_nq, seed),
    )
    return dict(zip(LATENT_SCORES, scores, strict=True))


LATENT_SCORES = (
    "adjusted_rand_index",
    "adjusted_mutual_information",
    "neighbourhood_similarity",
    "neighbourhood_similarity_std",
    "neighbourhood_similarity_chance",
    "motion_error_deg",
    "motion_error_mean_deg",
)


def _neighbours(truth: Truth, z_nq: np.ndarray, seed: int, notes: list[str]) -> tuple[float | None, ...]:
    """Neighbourhood similarity over all sizes, in percent: mean, spread, chance."""
    found = neighbourhood_similarity(truth.coordinates(seed), z_nq, seed=seed)
    if found is None:
        notes.append(f"{len(z_nq)} images are too few for neighbourhoods of 200 among every fifth image")
        return None, None, None
    chance = 500 * found.size_k.mean() / len(z_nq)
    return float(found.percent_k.mean()), float(found.spread_k.mean()), float(chance)


def _motion(truth: Truth, z_nq: np.ndarray, seed: int) -> tuple[float | None, ...]:
    """Median and mean error of the angle in degrees."""
    if truth.angle_deg_n is None:
        return None, None
    error_deg_n = angle_error(truth.angle_deg_n, z_nq, seed=seed)
    return float(np.median(error_deg_n)), float(error_deg_n.mean())
