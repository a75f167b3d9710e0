"""A map from images without poses: random orientations, then search and back-projection by turns at low resolution.

Each stage has a bank of views fine enough for its radius k = c D/(2R), R the particle's radius. Views are drawn in
balance until the map is good enough for every image to choose its own.
Axes: n images, s shells, z y x maps.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from morphem.data.dataset import Dataset, Observed
from morphem.inference.msteps import NormalEquations
from morphem.inference.search import Bank, Grid, PoseSearch, posed
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import cube as cubes
from morphem.physics import masks, rotations
from morphem.run import Run


@dataclass(frozen=True)
class Stage:
    """`cycles` across the particle that the map is read up to, the grid's size, sweeps, and how views are chosen."""

    cycles: float
    views: int
    turns: int
    sweeps: int
    balanced: bool


LONG = (Stage(3.0, 96, 20, 20, True), Stage(4.2, 192, 28, 20, True), Stage(5.4, 384, 36, 8, False))
SHORT = (Stage(3.0, 96, 20, 10, True), Stage(4.2, 192, 28, 10, True), Stage(5.4, 384, 36, 4, False))
ALL_UP_TO, A_VIEW, FEWEST = 1000, 2, 600
"""So many images take part in every sweep; of more, so many for every view, and never fewer than the last."""
KEPT = 0.5
"""Of the sums, from sweep to sweep."""
FLOOR, FLOOR_AT_FIRST = 0.3, 0.5
"""What is added to a voxel's weight, of the mean weight."""
MASK = 1.25
"""Times the particle's radius: beyond, maps are 0."""


@dataclass(frozen=True)
class Setting:
    """What is looked at: images to fit and to hold out, the particle's radius and the reach of shifts in pixels."""

    dataset: Dataset
    row_n: np.ndarray
    held_out_n: np.ndarray
    particle: float
    reach: float
    seed: int
    classes: int = 1

    def with_noise(self, noise_gs: torch.Tensor) -> "Setting":
        return replace(self, dataset=self.dataset.with_noise(noise_gs))

    def resolution_A(self, radius: float) -> float:
        return self.dataset.box * self.dataset.pixel_A / radius

    def radius(self, cycles: float) -> float:
        """k = c D/(2R), the Fourier radius of so many cycles."""
        largest = self.dataset.lattice.radius
        return float(min(largest, max(3, round(cycles * self.dataset.box / (2 * self.particle)))))

    def box(self, radius: float) -> int:
        """The side of the coarse grid that serves a radius."""
        return cubes.coarse_box(radius, self.dataset.box)

    def observed(self, row_n: np.ndarray, radius: float) -> Observed:
        """Images on the coarse grid of a radius, without the poses of their table."""
        observed = self.dataset.within(radius).observed(row_n)
        return observed.on(self.box(radius))

    def sums(self, observed: Observed) -> NormalEquations:
        """Empty ones for the maps of all classes, on the images' lattice."""
        return NormalEquations(observed.lattice, classes=self.classes, device=self.dataset.device)

    def grid(self, stage: Stage) -> Grid:
        """Shifts in steps of D/5k."""
        radius = self.radius(stage.cycles)
        box = self.box(radius)
        return Grid.of(stage.views, stage.turns, self.reach * box / self.dataset.box, box / (5 * radius))

    def mask(self, box: int) -> np.ndarray:
        """A sphere about the particle."""
        scale = box / self.dataset.box
        return masks.sphere(box, MASK * self.particle * scale, max(1.0, 3.0 * scale))


@dataclass(frozen=True, eq=False)
class Start:
    """What one random start came to."""

    volume: LinearVolume
    score: float
    """Mean S of held-out images at their best poses, and of the same with phases at random."""
    chance: float
    error: float
    """Standard error of their difference."""

    @property
    def gain(self) -> float:
        return self.score - self.chance


class Attempt:
    """One random start: its random numbers, sums and map."""

    def __init__(self, setting: Setting, number: int, run: Run):
        self.setting, self.number, self.run = setting, number, run
        self.rng = torch.Generator().manual_seed(1000 * setting.seed + number)
        self.rows = np.random.default_rng([setting.seed, number])

    @torch.inference_mode()
    def __call__(self, stages: tuple[Stage, ...]) -> Start:
        volume = self._random(stages[0])
        for stage in stages:
            volume = self._stage(stage, volume)
        return self._judged(stages[-1], volume)

    def _random(self, stage: Stage) -> LinearVolume:
        """The map of random orientations."""
        radius = self.setting.radius(stage.cycles)
        observed = self.setting.observed(self._batch(stage), radius)
        class_b1 = torch.from_numpy(self.rows.permutation(len(observed)) % self.setting.classes)[:, None]
        rotation_b133 = torch.from_numpy(rotations.uniform(len(observed), self.rows)).float()[:, None]
        nowhere_b12, equal_b1 = torch.zeros(len(observed), 1, 2), torch.zeros(len(observed), 1)
        sums = self.setting.sums(observed)
        sums.update(observed, posed(class_b1, rotation_b133, nowhere_b12, equal_b1))
        return solved(sums, self.setting, FLOOR_AT_FIRST)

    def _stage(self, stage: Stage, volume: LinearVolume) -> LinearVolume:
        radius, grid = self.setting.radius(stage.cycles), self.setting.grid(stage)
        box = self.setting.box(radius)
        volume = LinearVolume.of(centred(cubes.resampled(volume.map_czyx, box)), radius)
        sums, search = None, PoseSearch(grid, balanced=stage.balanced, rng=self.rng)
        for sweep in range(stage.sweeps):
            observed = self.setting.observed(self._batch(stage), radius)
            sums = sums or self.setting.sums(observed)
            sums.fade(KEPT)
            found = search(observed, volume, ImageModel())
            sums.update(observed, found)
            volume = solved(sums, self.setting, FLOOR)
            self._record(radius, sweep, len(observed), float(found.evidence_b.mean()))
        return volume

    def _record(self, radius: float, sweep: int, images: int, score: float) -> None:
        part = f"start {self.number + 1}"
        self.run.record(part=part, radius=radius, sweep=sweep + 1, images=images, score=round(score, 4))

    def _batch(self, stage: Stage) -> np.ndarray:
        """The images of one sweep."""
        row_n = self.setting.row_n
        if len(row_n) <= ALL_UP_TO or not stage.balanced:
            return row_n
        return np.sort(self.rows.permutation(row_n)[: max(FEWEST, A_VIEW * stage.views)])

    def _judged(self, stage: Stage, volume: LinearVolume) -> Start:
        """Held-out images scored against the map, and against one with its amplitudes and random phases."""
        observed = self.setting.observed(self.setting.held_out_n, volume.radius)
        noise = random_phases(volume, self.setting, self.rng)
        grid = self.setting.grid(stage)
        best, chance = (Bank(grid, one, observed).scores(observed).score_bv.max(1).values for one in (volume, noise))
        gain_b = best - chance
        error = float(gain_b.std() / len(gain_b) ** 0.5)
        return Start(volume, float(best.mean()), float(chance.mean()), error)


def solved(sums: NormalEquations, setting: Setting, floor: float) -> LinearVolume:
    """num / (den + λ), λ a share of the mean weight of voxels that any image has reached, within a sphere."""
    weight_cv, shells = sums.sum_czyxp[..., -1].flatten(1), int(sums.lattice.radius) + 2
    ridge_c = floor * weight_cv.sum(1) / (weight_cv > 0).sum(1).clamp(min=1)
    map_czyx = sums.solve(ridge_c[:, None, None].clamp(min=1e-30).repeat(1, shells, 1))
    mask_zyx = torch.from_numpy(setting.mask(sums.lattice.box)).to(map_czyx)
    return LinearVolume.of(map_czyx * mask_zyx, sums.lattice.radius)


def centred(map_czyx: torch.Tensor) -> torch.Tensor:
    """Each map moved by whole voxels such that its positive density has its centre of mass in the middle."""
    return torch.stack([_centred(map_zyx) for map_zyx in map_czyx])


def _centred(map_zyx: torch.Tensor) -> torch.Tensor:
    density_zyx, box = map_zyx.clamp(min=0), map_zyx.shape[-1]
    place = torch.arange(box, device=map_zyx.device, dtype=density_zyx.dtype) - box // 2
    total = density_zyx.sum().clamp(min=1e-30)
    sides = [density_zyx.sum(tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return map_zyx.roll(tuple(-round(float((side @ place) / total)) for side in sides), (0, 1, 2))


def random_phases(volume: LinearVolume, setting: Setting, rng: torch.Generator) -> LinearVolume:
    """Maps with the same power in every shell, and phases of noise, within the same sphere."""
    box, radius = volume.box, volume.radius
    noise_czyx = torch.randn(volume.map_czyx.shape, generator=rng).to(volume.map_czyx)
    noise_czyx *= torch.from_numpy(setting.mask(box)).to(noise_czyx)
    noise_zyxc, own_zyxc = (cubes.cube_of_maps(maps, radius) for maps in (noise_czyx, volume.map_czyx))
    shell_zyx = cubes.voxel_radius(noise_zyxc, 2).round().long()
    wanted_sc, has_sc = (_shell_power(cube_zyxc, shell_zyx) for cube_zyxc in (own_zyxc, noise_zyxc))
    factor_sc = (wanted_sc / has_sc.clamp(min=1e-30)).sqrt()
    return LinearVolume.of(cubes.maps_of_cube(noise_zyxc * factor_sc[shell_zyx].repeat(1, 1, 1, 2), box), radius)


def _shell_power(cube_zyxc: torch.Tensor, shell_zyx: torch.Tensor) -> torch.Tensor:
    """Σ|V|² of every map over every shell, (s, c)."""
    power_vc = cube_zyxc.square().unflatten(-1, (2, -1)).sum(-2).flatten(0, 2)
    return power_vc.new_zeros(int(shell_zyx.max()) + 1, power_vc.shape[1]).index_add_(0, shell_zyx.flatten(), power_vc)
