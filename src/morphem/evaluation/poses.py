"""Poses against the truth, and the frame in which maps made at them are those of the truth.

A structure found without poses has a frame, a hand and a centre of its own: R_true ≈ Q A with Q = R or J R J, and
t − t_true ≈ (Q A u)_xy. The map V of the run is then V_true(x) = V(H (x + u)), H = A or J A. Where a run has classes,
each has its own frame.
Axes: n images, g groups of images that share a frame, z y x maps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from morphem.data.particles import Particles
from morphem.ensemble import Ensemble
from morphem.methods import finds_poses
from morphem.physics.alignment import MIRROR, Frame, align, origin
from morphem.physics.rotations import distance_rad

KEYS = (
    "rotation_error_median_deg",
    "rotation_error_mean_deg",
    "rotation_error_90_deg",
    "view_error_median_deg",
    "shift_error_A",
    "hand",
)
FEWEST, MOST_CLASSES = 10, 20
"""Images that a frame can be told from, and classes up to which each is scored."""
Place = Callable[[int, np.ndarray], np.ndarray]
"""Brings the map of an image to the truth's frame."""


@dataclass(frozen=True, eq=False)
class TruePoses:
    """R and t (Å) of every image."""

    rotation_n33: np.ndarray
    shift_A_n2: np.ndarray

    @classmethod
    def read(cls, folder: Path, row_n: np.ndarray) -> "TruePoses | None":
        """Those of some images, from truth.parquet; None where there is none."""
        path = folder / "truth.parquet"
        if not path.is_file():
            return None
        table = pd.read_parquet(path).iloc[row_n]
        rotation_n33 = table[[f"r{i}{j}" for i in range(3) for j in range(3)]].to_numpy(float).reshape(-1, 3, 3)
        return cls(rotation_n33, table[["shift_x_A", "shift_y_A"]].to_numpy(float))

    def rows(self, row_n: np.ndarray) -> "TruePoses":
        return TruePoses(self.rotation_n33[row_n], self.shift_A_n2[row_n])


@dataclass(frozen=True, eq=False)
class Match:
    """One frame: how the run's poses and maps are brought to the truth's, and the errors that remain."""

    frame: Frame
    origin_A_3: np.ndarray
    rotation_deg_n: np.ndarray
    view_deg_n: np.ndarray
    shift_A_n: np.ndarray

    @classmethod
    def of(cls, found: Particles, true: TruePoses) -> "Match":
        """Of images in the same order."""
        frame = align(found.rotation_n33, true.rotation_n33)
        rotation_n33, moved_n2 = frame.poses(found.rotation_n33), found.shift_A_n2 - true.shift_A_n2
        origin_3 = origin(rotation_n33, moved_n2)
        view_n = np.arccos(np.clip((rotation_n33[:, 2] * true.rotation_n33[:, 2]).sum(1), -1, 1))
        return cls(
            frame,
            origin_3,
            np.degrees(distance_rad(rotation_n33, true.rotation_n33)),
            np.degrees(view_n),
            np.linalg.norm(moved_n2 - rotation_n33[:, :2] @ origin_3, axis=1),
        )

    def scores(self) -> dict[str, Any]:
        """The errors' summary, ready for JSON; `hand` is the truth's or its mirror."""
        rotation_n = self.rotation_deg_n
        values = np.median(rotation_n), rotation_n.mean(), np.quantile(rotation_n, 0.9), np.median(self.view_deg_n)
        hand = "mirrored" if self.frame.mirrored else "same"
        return dict(zip(KEYS, (*map(float, values), float(np.median(self.shift_A_n)), hand), strict=True))

    def to_truth(self, map_zyx: np.ndarray, pixel_A: float) -> np.ndarray:
        """A map of the run in the truth's frame, by cubic splines."""
        turn_33 = (MIRROR if self.frame.mirrored else np.eye(3)) @ self.frame.rotation_33
        turn_zyx, centre = turn_33[::-1, ::-1], np.full(3, len(map_zyx) // 2)
        offset = centre - turn_zyx @ centre + turn_zyx @ self.origin_A_3[::-1] / pixel_A
        return ndimage.affine_transform(map_zyx, turn_zyx, offset, order=3)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, eq=False)
class Frames:
    """The frame of every group of images of a run."""

    match_g: dict[int, Match]
    group_n: np.ndarray

    @classmethod
    def of(cls, found: Particles, true: TruePoses, group_n: np.ndarray) -> "Frames":
        """One frame each for groups that are large enough; images of others have the largest group's."""
        groups, counts = np.unique(group_n, return_counts=True)
        told = groups[counts >= min(FEWEST, counts.max())]
        match_g = {
            int(g): Match.of(found.take(np.flatnonzero(group_n == g)), true.rows(np.flatnonzero(group_n == g)))
            for g in told
        }
        return cls(match_g, np.where(np.isin(group_n, told), group_n, groups[counts.argmax()]))

    def at(self, row: int) -> Match:
        """That of an image."""
        return self.match_g[int(self.group_n[row])]


def pose_scores(
    ensemble: Ensemble, true: TruePoses | None, row_n: np.ndarray, state_n: np.ndarray, label_n: np.ndarray | None
) -> tuple[dict[str, Any], Place]:
    """Errors of some rows' poses in one frame and in a frame of every class; maps move where the run found its poses.

    None where the truth has no poses. Classes are the run's (`label_n`), else the true states where they are few.
    """
    found = ensemble.poses.take(row_n)
    if true is None:
        return dict.fromkeys((*KEYS, "poses_by_class")), lambda row, map_zyx: map_zyx
    own_n = state_n if label_n is None else label_n
    by_class = Frames.of(found, true, own_n) if 1 < len(np.unique(own_n)) <= MOST_CLASSES else None
    scores = Match.of(found, true).scores()
    scores["poses_by_class"] = by_class and [{"class": g} | match.scores() for g, match in by_class.match_g.items()]
    if not finds_poses(ensemble.method):
        return scores, lambda row, map_zyx: map_zyx
    one_frame = label_n is None or ensemble.config["settings"].get("then")
    frames = Frames.of(found, true, np.zeros(len(found), int) if one_frame else own_n)
    return scores, lambda row, map_zyx: frames.at(row).to_truth(map_zyx, ensemble.pixel_A)
