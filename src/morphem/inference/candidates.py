"""The poses that each image may have: found on a grid, improved off it, fewer in every round.

Axes: n images, h candidates of an image, b images of a batch.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from morphem.data.dataset import Dataset, Observed
from morphem.inference.esteps import EStep, Hypotheses
from morphem.inference.pose_steps import climb, with_slopes
from morphem.inference.search import posed
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.run import progress

FAR = 10.0
"""Nats: a candidate so much less likely than an image's best is dropped at once."""
BATCH = 256


@dataclass(frozen=True, eq=False)
class Candidates:
    """Classes, rotations, shifts in pixels of the images, log-likelihoods up to a constant of the image (−∞: none)."""

    class_nh: torch.Tensor
    rotation_nh33: torch.Tensor
    shift_nh2: torch.Tensor
    log_nh: torch.Tensor

    def __len__(self) -> int:
        return len(self.log_nh)

    @classmethod
    def of(cls, parts: list[Hypotheses]) -> "Candidates":
        """Those of batches in row order."""
        return cls(
            torch.cat([part.class_bh for part in parts]),
            torch.cat([part.rotation_bh33 for part in parts]),
            torch.cat([part.shift_bh2 for part in parts]),
            torch.cat([part.logw_bh + part.evidence_b[:, None] for part in parts]),
        )

    def best(self, count: int) -> "Candidates":
        """The `count` likeliest of each image, the best first; those that are far from it are none."""
        log_nh, order_nh = self.log_nh.topk(min(count, self.log_nh.shape[1]), dim=1)
        log_nh = torch.where(log_nh < log_nh[:, :1] - FAR, -torch.inf, log_nh)
        at = torch.arange(len(self))[:, None], order_nh
        return Candidates(self.class_nh[at], self.rotation_nh33[at], self.shift_nh2[at], log_nh)

    def rows(self, row_n: np.ndarray) -> "Candidates":
        """Those of some images."""
        return Candidates(*(getattr(self, f.name)[torch.from_numpy(row_n)] for f in dataclasses.fields(self)))

    def with_best(self, row_n: torch.Tensor, other: "Candidates") -> "Candidates":
        """Some images' first candidates replaced by others' first."""
        changed = {f.name: getattr(self, f.name).clone() for f in dataclasses.fields(self)}
        for name, values in changed.items():
            values[row_n, 0] = getattr(other, name)[:, 0]
        return Candidates(**changed)

    def placed(self, dataset: Dataset) -> Dataset:
        """The dataset at every image's best pose."""
        best, table = self.best(1), dataset.particles
        shift_A_n2 = best.shift_nh2[:, 0].double().numpy() * table.pixel_A_n[:, None]
        rotation_n33 = orthonormal(best.rotation_nh33[:, 0].double()).numpy()
        return dataclasses.replace(dataset, particles=table.with_poses(rotation_n33, shift_A_n2))


def orthonormal(rotation_n33: torch.Tensor) -> torch.Tensor:
    """The nearest rotations: products in float32 drift."""
    left_n33, _, right_n33 = torch.linalg.svd(rotation_n33)
    return left_n33 @ right_n33


class AtCandidates(EStep):
    """Candidates as hypotheses, in the pixels of a smaller box; `weight_n` multiplies each image's."""

    def __init__(self, candidates: Candidates, scale: float, weight_n: torch.Tensor):
        super().__init__()
        self.candidates, self.scale, self.weight_n = candidates, scale, weight_n

    def forward(self, observed: Observed, volume: LinearVolume | None, model: ImageModel) -> Hypotheses:
        row_b, known = torch.from_numpy(observed.index_b), self.candidates
        pose = known.rotation_nh33[row_b], known.shift_nh2[row_b] * self.scale
        found = posed(known.class_nh[row_b], *pose, known.log_nh[row_b])
        return dataclasses.replace(found, logw_bh=found.logw_bh + self.weight_n[row_b, None].log())


@torch.inference_mode()
def improved(
    dataset: Dataset,
    candidates: Candidates,
    volume: LinearVolume,
    text: str,
    row_n: np.ndarray | None = None,
    features: int = 1,
    free: str = "both",
) -> tuple[Candidates, torch.Tensor]:
    """Candidates after Levenberg–Marquardt steps at the volume's radius, and what the best leaves per sample, (n).

    `log` becomes −Σ|X̃ − X̂|² − ½|z|². Candidates are those of some images, in their order, or of all. A class has
    `features` maps: a mean, and eigenvolumes along which each image may move.
    """
    starts, box = range(0, len(volume.map_czyx), features), volume.box
    slopes = [with_slopes(volume, slice(first, first + features)) for first in starts]
    parts, dataset = [], dataset.within(volume.radius)
    done, row_n = 0, np.arange(len(dataset)) if row_n is None else row_n
    with progress(len(row_n), text) as bar:
        for observed in dataset.batches(max(1, BATCH // candidates.log_nh.shape[1]), row_n):
            known = candidates.rows(np.arange(done, done + len(observed)))
            parts.append(_improved(observed, known, slopes, box / dataset.box, free))
            done += len(observed)
            bar.advance(len(observed))
    new = Candidates(*(torch.cat([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Candidates)))
    return new, -new.log_nh.max(1).values / len(dataset.lattice)


def _improved(observed: Observed, known: Candidates, slopes: list[LinearVolume], scale: float, free: str) -> Candidates:
    """Those of a batch; what is none stays so."""
    rotation_bh33, shift_bh2, log_bh = known.rotation_nh33.clone(), known.shift_nh2.clone(), known.log_nh.clone()
    for c, volume in enumerate(slopes):
        image_p, h_p = (torch.isfinite(log_bh) & (known.class_nh == c)).nonzero(as_tuple=True)
        if not len(image_p):
            continue
        pose = {"rotation_b33": rotation_bh33[image_p, h_p], "shift_b2": shift_bh2[image_p, h_p] * scale}
        place = climb(dataclasses.replace(observed.on(volume.box)[image_p.numpy()], **pose), volume, free=free)
        rotation_bh33[image_p, h_p], shift_bh2[image_p, h_p] = place.rotation_b33, place.shift_b2 / scale
        log_bh[image_p, h_p] = -place.cost_b
    return Candidates(known.class_nh, rotation_bh33, shift_bh2, log_bh)


def searched(
    dataset: Dataset, search: EStep, volume: LinearVolume, text: str, row_n: np.ndarray | None = None
) -> Candidates:
    """What a search over the volume's slices finds for some images, or all."""
    parts, scale = [], volume.box / dataset.box
    rows = np.arange(len(dataset)) if row_n is None else row_n
    dataset = dataset.within(volume.radius)
    with progress(len(rows), text) as bar:
        for observed in dataset.batches(512, rows):
            parts.append(search(observed.on(volume.box), volume, ImageModel()))
            bar.advance(len(observed))
    found = Candidates.of(parts)
    return dataclasses.replace(found, shift_nh2=found.shift_nh2 / scale)
