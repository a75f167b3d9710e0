"""Rotations and their conversions. x_image = R x_map, so a slice is read at Rᵀk; as rows, `k @ R`.

Axes: n rotations; matrices act on (x, y, z). RELION: R = Rz(ψ) Ry(tilt) Rz(rot); cryoSPARC: a rotation vector of Rᵀ.
"""

import re

import numpy as np
from scipy.spatial.transform import Rotation

from morphem.errors import InputError


def from_relion(angles_deg_n3: np.ndarray) -> np.ndarray:
    """(n, 3, 3) from RELION's rot, tilt, psi in degrees."""
    return Rotation.from_euler("ZYZ", angles_deg_n3, degrees=True).inv().as_matrix()


def to_relion(rotation_n33: np.ndarray) -> np.ndarray:
    """RELION's rot, tilt, psi in degrees, (n, 3); where tilt is 0 or 180° psi takes no part."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gimbal lock detected")
        return Rotation.from_matrix(np.swapaxes(rotation_n33, -1, -2)).as_euler("ZYZ", degrees=True)


def from_cryosparc(pose_n3: np.ndarray) -> np.ndarray:
    """(n, 3, 3) from cryoSPARC's rotation vectors; a zero vector is the identity."""
    return np.swapaxes(Rotation.from_rotvec(pose_n3).as_matrix(), -1, -2)


def to_cryosparc(rotation_n33: np.ndarray) -> np.ndarray:
    """cryoSPARC's rotation vectors, (n, 3)."""
    return Rotation.from_matrix(np.swapaxes(rotation_n33, -1, -2)).as_rotvec()


def uniform(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3, 3) rotations drawn uniformly from SO(3)."""
    return Rotation.random(count, rng=rng).as_matrix()


def about(vector_rad_n3: np.ndarray) -> np.ndarray:
    """exp([ω]×): the rotations by |ω| about ω, (n, 3, 3)."""
    return Rotation.from_rotvec(vector_rad_n3).as_matrix()


def point_group(name: str) -> np.ndarray:
    """The rotations (g, 3, 3) of C1, C2, …, D2, … or O, the identity first; n-fold (O: 4-fold) about z, 2-fold about x.

    Errors: InputError for any other name.
    """
    refuse_other_groups(name)
    group = Rotation.create_group(name.upper(), axis="Z").as_matrix()
    return group[np.argsort(-np.trace(group, axis1=1, axis2=2), kind="stable")]


def refuse_other_groups(name: str) -> None:
    """Errors: InputError where `point_group` knows no such name."""
    if not re.fullmatch(r"C[1-9]\d?|D([2-9]|[1-9]\d)|O", name.upper()):
        raise InputError(f"--symmetry {name}: expected C1, C2, …, D2, D3, … or O; expand the particles for others")


def distance_rad(a_n33: np.ndarray, b_n33: np.ndarray) -> np.ndarray:
    """Geodesic distance θ = 2 asin(‖A − B‖_F / √8), (n,)."""
    return 2 * np.arcsin(np.clip(np.linalg.norm(a_n33 - b_n33, axis=(-2, -1)) / np.sqrt(8), 0, 1))
