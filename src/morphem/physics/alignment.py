"""One frame brought to another: the rotation, the hand and the shift between two sets of poses of the same images.

Images do not tell a structure from its mirror: V(Jx) at poses J R J gives the images of V at R, J = diag(1, 1, −1).
Axes: n images.
"""

from dataclasses import dataclass

import numpy as np

from morphem.physics.rotations import distance_rad

MIRROR = np.diag([1.0, 1.0, -1.0])
ANCHORS, JUDGES, ROUNDS = 200, 2000, 10
"""Images that a frame is guessed from, images that judge the guess, and rounds of reweighting."""
LEAST = np.radians(0.5)
"""Errors below this one weigh alike."""


@dataclass(frozen=True, eq=False)
class Frame:
    """`rotation_33` A and `hand` with R_target = Q A, Q = R or J R J; det A = 1."""

    rotation_33: np.ndarray
    mirrored: bool

    def poses(self, rotation_n33: np.ndarray) -> np.ndarray:
        """Poses in the target's frame."""
        return handed(rotation_n33, self.mirrored) @ self.rotation_33


def handed(rotation_n33: np.ndarray, mirrored: bool) -> np.ndarray:
    """R, or J R J."""
    return MIRROR @ rotation_n33 @ MIRROR if mirrored else rotation_n33


def align(from_n33: np.ndarray, to_n33: np.ndarray) -> Frame:
    """The frame, of both hands the better, that brings poses nearest to others in the sense of a robust mean.

    Candidates A = Q_jᵀ G_j of some images are judged by the median angle; then ten times A ← U Vᵀ of the singular
    value decomposition of Σ w_i Q_iᵀ G_i, w = 1/max(θ_i, 0.5°). A mean alone fails where half of the poses are wrong.
    """
    found = [_one_hand(handed(from_n33, mirrored), to_n33) for mirrored in (False, True)]
    mirrored = bool(found[1][1] < found[0][1])
    return Frame(found[mirrored][0], mirrored)


def _one_hand(from_n33: np.ndarray, to_n33: np.ndarray) -> tuple[np.ndarray, float]:
    """A, and the median angle that it leaves."""
    anchor_n, judge_n = (_spread(len(from_n33), count) for count in (ANCHORS, JUDGES))
    guess_a33 = np.swapaxes(from_n33[anchor_n], 1, 2) @ to_n33[anchor_n]
    medians = [np.median(distance_rad(from_n33[judge_n] @ guess_33, to_n33[judge_n])) for guess_33 in guess_a33]
    rotation_33 = guess_a33[int(np.argmin(medians))]
    for _ in range(ROUNDS):
        weight_n = 1 / np.maximum(distance_rad(from_n33 @ rotation_33, to_n33), LEAST)
        left_33, _, right_33 = np.linalg.svd(np.einsum("n,nji,njk->ik", weight_n, from_n33, to_n33))
        rotation_33 = left_33 @ np.diag([1, 1, np.linalg.det(left_33 @ right_33)]) @ right_33
    return rotation_33, float(np.median(distance_rad(from_n33 @ rotation_33, to_n33)))


def _spread(total: int, count: int) -> np.ndarray:
    """At most `count` rows, evenly spaced."""
    return np.unique(np.arange(count) * total // count)


def origin(rotation_n33: np.ndarray, moved_n2: np.ndarray) -> np.ndarray:
    """u with (R_i u)_xy nearest to the moves of all images: least squares, reweighted towards the sum of distances."""
    rows_n23 = rotation_n33[:, :2]
    weight_n = np.ones(len(rows_n23))
    u_3 = np.zeros(3)
    for _ in range(ROUNDS):
        normal_33 = np.einsum("n,nij,nik->jk", weight_n, rows_n23, rows_n23)
        u_3 = np.linalg.solve(normal_33, np.einsum("n,nij,ni->j", weight_n, rows_n23, moved_n2))
        weight_n = 1 / np.maximum(np.linalg.norm(moved_n2 - rows_n23 @ u_3, axis=1), 1e-2)
    return u_3
