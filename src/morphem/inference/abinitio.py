"""Poses from nothing for all images: random starts, the best of them, then finer and finer off the grid.

Axes: n images, h candidates of an image, c classes, s shells, z y x maps.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from morphem.inference.candidates import AtCandidates, Candidates, improved, searched
from morphem.inference.checkpoints import Checkpoint, Checkpoints
from morphem.inference.consensus import merged
from morphem.inference.expectation import Images, Model, remaining_noise
from morphem.inference.search import Grid, PoseSearch
from morphem.inference.starts import Attempt, Setting, Stage, Start
from morphem.inference.subspaces import Subspaces
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics import grids
from morphem.physics.alignment import align
from morphem.physics.fsc import fsc
from morphem.physics.rotations import distance_rad
from morphem.run import Run

CANDIDATES = (8, 8, 4, 4, 2, 2, 1)
"""That an image keeps in the first rounds; later as many as in the last of these."""
APART = 1.5
"""Steps of the grid between candidates."""
SEARCH_CYCLES = 7.2
"""Across the particle, at which all images are searched."""
FINER = 1.3
"""Every second round the radius grows by this factor, as far as half-maps agree and some shells more."""
BEYOND = 4
ROUNDS = 8
WORST = 0.1
"""The share of images, those that are explained worst, that are searched again after every second round."""
HUBER = 3.0
"""Deviations beyond which an image's weight falls."""
JUDGES = 2000
"""Images whose poses tell whether two starts agree."""
NOISE_IMAGES = 2000
"""That the noise is measured on."""
TURNED_RAD = np.radians(5.0)
AGREE_DEG, MORE = 30.0, 8
"""Two starts that found one structure differ by less, in the median; where no two do, so many more are begun."""


@dataclass(frozen=True, eq=False)
class State:
    """What refinement goes on from, and is resumed from, after each round."""

    volume: LinearVolume
    curve_s: torch.Tensor
    """FSC of half-maps, the mean over classes."""
    candidates: Candidates
    left_n: torch.Tensor
    """Σ|X̃ − X̂|² a sample of every image's best pose: 1 is noise as it was first measured."""
    turned_n: torch.Tensor
    """By how much the best pose of an image turned in the last round."""
    noise_gs: torch.Tensor
    """What images are whitened by in the next round."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it, by name."""
        poses = {f.name: getattr(self.candidates, f.name) for f in dataclasses.fields(Candidates)}
        radius = torch.tensor(self.volume.radius)
        names = "curve_s", "left_n", "turned_n", "noise_gs"
        own = {name: getattr(self, name) for name in names}
        return poses | own | {"map_czyx": self.volume.map_czyx, "radius": radius}

    @classmethod
    def of(cls, tensors: dict[str, torch.Tensor]) -> "State":
        """From `tensors`."""
        candidates = Candidates(*(tensors[f.name] for f in dataclasses.fields(Candidates)))
        volume = LinearVolume.of(tensors["map_czyx"], float(tensors["radius"]))
        left = tensors["left_n"], tensors["turned_n"], tensors["noise_gs"]
        return cls(volume, tensors["curve_s"], candidates, *left)


def best_start(setting: Setting, stages: tuple[Stage, ...], count: int, run: Run) -> tuple[Start, float | None]:
    """The start that held-out images score highest, and how far, in degrees, the nearest other start's poses are.

    Where none of the others is near, more are begun.
    """
    starts = _begun(setting, stages, range(count), run)
    if count == 1:
        return starts[0], None
    apart_deg = _agreement(setting, stages[-1], starts, run)
    if apart_deg > AGREE_DEG:
        starts += _begun(setting, stages, range(count, count + MORE), run)
        apart_deg = _agreement(setting, stages[-1], starts, run)
    return max(starts, key=lambda start: start.score), apart_deg


def _begun(setting: Setting, stages: tuple[Stage, ...], numbers: range, run: Run) -> list[Start]:
    starts = []
    for number in numbers:
        starts.append(Attempt(setting, number, run)(stages))
        score, chance, error = starts[-1].score, starts[-1].chance, starts[-1].error
        run.log(
            f"Start {number + 1}: held-out images score {score:.2f}, {chance:.2f} with phases at random (± {error:.2f})"
        )
    return starts


def _agreement(setting: Setting, stage: Stage, starts: list[Start], run: Run) -> float:
    """By how many degrees the best start's poses differ from the nearest other's, in the median."""
    best, *others = (_coarse_poses(setting, stage, start) for start in sorted(starts, key=lambda start: -start.score))
    apart_deg = min(float(np.degrees(_apart(best, other))) for other in others)
    run.log(f"The best start's poses differ from the nearest other start's by {apart_deg:.1f}° in the median")
    return apart_deg


def _coarse_poses(setting: Setting, stage: Stage, start: Start) -> tuple[np.ndarray, np.ndarray]:
    """Class and rotation of some images under a start."""
    row_n = setting.row_n[np.unique(np.arange(JUDGES) * len(setting.row_n) // JUDGES)]
    found = searched(setting.dataset, PoseSearch(setting.grid(stage)), start.volume, "Comparing starts", row_n)
    return found.class_nh[:, 0].numpy(), found.rotation_nh33[:, 0].double().numpy()


def _apart(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Median angle between the poses of two starts, each class of the one aligned to the other's that shares most."""
    class_n, rotation_n33 = one
    angle_n = np.full(len(class_n), np.pi)
    for c in np.unique(class_n):
        mate = np.bincount(other[0][class_n == c]).argmax()
        both = np.flatnonzero((class_n == c) & (other[0] == mate))
        frame = align(other[1][both], rotation_n33[both])
        angle_n[both] = distance_rad(frame.poses(other[1][both]), rotation_n33[both])
    return float(np.median(angle_n))


@torch.inference_mode()
def refined(setting: Setting, start: Start, run: Run) -> State:
    """All images searched against a start's map, then improved round by round; goes on from the last checkpoint."""
    checkpoints, halves = Checkpoints(run.folder / "checkpoints"), setting.dataset.halves(run.seed)
    saved = checkpoints.latest() if run.resume else None
    state, done = (State.of(saved.state), saved.epoch) if saved else (_searched(setting, start.volume, halves), 0)
    run.forget_history_after(done, "refinement")
    for number in range(done, ROUNDS):
        state = _round(setting, state, number, halves)
        if number % 2 and number < ROUNDS - 1:
            state = _searched_again(setting, state)
        _record(run, number + 1, state)
        checkpoints.save(Checkpoint(number + 1, 0, "float32", state.tensors()))
    return state


def _searched(setting: Setting, volume: LinearVolume, halves: tuple[np.ndarray, np.ndarray]) -> State:
    """Candidates of all images from a map, on the grid of its wide search."""
    search, volume = _wide_search(setting, volume, CANDIDATES[0])
    candidates = searched(setting.dataset, search, volume, "Searching poses")
    equal_n = torch.ones(len(setting.dataset))
    volume, curve_s = half_maps(setting, candidates.best(1), equal_n, halves, volume.radius)
    return State(volume, curve_s, candidates, equal_n, torch.zeros_like(equal_n), setting.dataset.noise_gs)


def _round(setting: Setting, state: State, number: int, halves: tuple[np.ndarray, np.ndarray]) -> State:
    """Better poses, then the map that they give, every second time a finer one, and the noise that it leaves."""
    setting = setting.with_noise(state.noise_gs)
    kept = state.candidates.best(CANDIDATES[min(number, len(CANDIDATES) - 1)])
    before_n33 = kept.rotation_nh33[:, 0]
    text = f"Refining poses to {setting.resolution_A(state.volume.radius):.1f} Å"
    candidates, left_n = improved(setting.dataset, kept, state.volume, text)
    candidates = candidates.best(kept.log_nh.shape[1])
    turned_n = torch.from_numpy(distance_rad(candidates.rotation_nh33[:, 0].numpy(), before_n33.numpy()))
    radius = _next_radius(setting, state) if number % 2 else state.volume.radius
    volume, curve_s = half_maps(setting, candidates, robust(left_n), halves, radius)
    images = Images(candidates.placed(setting.dataset), halves).some(NOISE_IMAGES, setting.seed).within(radius)
    noise_gs = remaining_noise(images, Model(volume, Subspaces(setting.classes, 0)))
    return State(volume, curve_s, candidates, left_n, turned_n, noise_gs)


def _next_radius(setting: Setting, state: State) -> float:
    radius = state.volume.radius
    wider = min(FINER * radius, reach(state.curve_s.numpy()) + BEYOND, setting.dataset.lattice.radius)
    return float(round(max(radius, wider)))


def _searched_again(setting: Setting, state: State) -> State:
    """The images that are explained worst take the pose of a wide search where it explains them better."""
    setting = setting.with_noise(state.noise_gs)
    count = max(1, round(WORST * len(state.left_n)))
    row_n = np.sort(state.left_n.topk(count).indices.numpy())
    search, volume = _wide_search(setting, state.volume, 1)
    found = searched(setting.dataset, search, volume, "Searching again", row_n)
    found, _ = improved(setting.dataset, found, state.volume, "Refining again", row_n)
    known = state.candidates.rows(row_n)
    better_n = (found.log_nh[:, 0] > known.log_nh[:, 0]).numpy()
    candidates = state.candidates.with_best(torch.from_numpy(row_n[better_n]), found.rows(np.flatnonzero(better_n)))
    return dataclasses.replace(state, candidates=candidates)


def _record(run: Run, epoch: int, state: State) -> None:
    told = {
        "radius": state.volume.radius,
        "candidates": state.candidates.log_nh.shape[1],
        "agreed": reach(state.curve_s.numpy()),
        "left": round(float(state.left_n.median()), 4),
        "turned_deg": round(float(state.turned_n.rad2deg().median()), 3),
    }
    run.record(part="refinement", epoch=epoch, **told)


def half_maps(
    setting: Setting,
    candidates: Candidates,
    weight_n: torch.Tensor,
    halves: tuple[np.ndarray, np.ndarray],
    radius: float,
) -> tuple[LinearVolume, torch.Tensor]:
    """The maps of all candidates on the coarse grid of a radius, and the FSC of two half-sets of one refinement."""
    dataset, box = setting.dataset.within(radius), setting.box(radius)
    estep = AtCandidates(candidates, box / dataset.box, weight_n)
    sums = []
    for rows in halves:
        for number, observed in enumerate(dataset.batches(500, rows)):
            here = observed.on(box)
            if number == 0:
                sums.append(setting.sums(here))
            sums[-1].update(here, estep(here, None, ImageModel()))
    both, mask_zyx = merged(*sums), setting.mask(box)
    curve_cs = [fsc(one * mask_zyx, two * mask_zyx) for one, two in zip(*both.half_hczyx, strict=True)]
    volume = LinearVolume.of(torch.from_numpy(both.maps(mask_zyx)), radius)
    return volume, torch.from_numpy(np.mean(curve_cs, 0))


def _wide_search(setting: Setting, volume: LinearVolume, keep: int) -> tuple[PoseSearch, LinearVolume]:
    """The search of all orientations at its radius, and the volume on that radius' grid."""
    radius = setting.radius(SEARCH_CYCLES)
    box = setting.box(radius)
    step = grids.step_rad(setting.dataset.box, radius, setting.particle)
    grid = Grid.of(*grids.views_for(step), setting.reach * box / setting.dataset.box, box / (5 * radius))
    volume = LinearVolume.of(cubes.resampled(volume.map_czyx, box), radius)
    return PoseSearch(grid, keep, APART * step), volume


def robust(left_n: torch.Tensor) -> torch.Tensor:
    """Huber's weights by what a pose leaves: 1 up to some deviations above the median, then falling as 1/x."""
    above_n = left_n - left_n.median()
    deviation = 1.4826 * above_n.abs().median().clamp(min=1e-12)
    return (HUBER / (above_n / deviation).clamp(min=HUBER)).float()


def reach(curve_s: np.ndarray) -> int:
    """The last shell before an FSC falls below 0.5."""
    below = np.flatnonzero(curve_s[1:] < 0.5)
    return int(below[0]) if len(below) else len(curve_s) - 1
