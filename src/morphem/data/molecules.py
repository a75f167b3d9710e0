"""What a simulation images: the atoms of every state of a molecule, grown as chains or read from coordinate files.

Axes: n atoms, 3 = (x, y, z). Å. E, the extent of a molecule, is 0.40 × box × pixel; lengths below are in units of E.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from morphem.errors import InputError

STEP_A = 3.8  # from one Cα to the next
PERSISTENCE = 0.55
CORE, HINGE, ARM = np.array([[-0.25, 0, 0], [0.12, 0, 0], [0.45, 0, 0]])
BEND_DEG = 55
TETHER_LINKS = 40
STATES = {"hinge": 50, "linker": 100, "molecules": 10}
PARTS = 0.42 * np.array([[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])


@dataclass(frozen=True, eq=False)
class State:
    """One shape of the molecule: its atoms, and where it lies on the motion."""

    position_A_n3: np.ndarray
    weight_n: np.ndarray
    motion: float = 0.0

    @classmethod
    def of(cls, *chain_n3: np.ndarray, motion: float = 0.0) -> "State":
        """Chains together, every atom of weight 1."""
        position_A_n3 = np.concatenate(chain_n3)
        return cls(position_A_n3, np.ones(len(position_A_n3)), motion)

    @property
    def centre_A_3(self) -> np.ndarray:
        """Σ wₙxₙ / Σ wₙ."""
        return self.weight_n @ self.position_A_n3 / self.weight_n.sum()


def chain(count: int, radius_A: float, rng: np.random.Generator) -> np.ndarray:
    """A walk of `count` atoms within a sphere, centred afterwards; (n, 3)."""
    walk_n3 = _walk(count, radius_A, rng)
    return walk_n3 - walk_n3.mean(0)


def _walk(count: int, radius_A: float, rng: np.random.Generator) -> np.ndarray:
    """From the origin in steps of 3.8 Å along 0.55 nᵢ₋₁ + nᵢ, n normal; mirrored at the sphere: |x| → 2r − |x|."""
    normal_n3 = rng.normal(size=(count, 3))
    heading_n3 = PERSISTENCE * normal_n3[:-1] + normal_n3[1:]
    walk_n3 = np.zeros((count, 3))
    for i, heading_3 in enumerate(heading_n3):
        walk_n3[i + 1] = walk_n3[i] + STEP_A * heading_3 / np.sqrt(heading_3 @ heading_3)
        distance = np.sqrt(walk_n3[i + 1] @ walk_n3[i + 1])
        if distance > radius_A:
            walk_n3[i + 1] *= 2 * radius_A / distance - 1
    return walk_n3


def grow(kind: str, extent_A: float, count: int | None, parts: int, rng: np.random.Generator) -> list[State]:
    """The states of a kind: `count` of them where the kind takes a number (None: its default)."""
    match kind:
        case "hinge":
            return hinge(extent_A, count or STATES[kind], rng)
        case "linker":
            return linker(extent_A, count or STATES[kind], rng)
        case "molecules":
            return unrelated(extent_A, count or STATES[kind], rng)
        case "assembly":
            return assembly(extent_A, parts, rng)
        case _:
            return still(extent_A, rng)


def still(extent_A: float, rng: np.random.Generator) -> list[State]:
    """Core and arm, one state: nothing to find."""
    return [State.of(*_core_and_arm(extent_A, rng))]


def hinge(extent_A: float, count: int, rng: np.random.Generator) -> list[State]:
    """The arm bent by 55° about y at the hinge, then turned about x through 360°; motion = the angle in degrees."""
    core_n3, arm_n3 = _core_and_arm(extent_A, rng)
    bent_n3 = Rotation.from_euler("y", BEND_DEG, degrees=True).apply(arm_n3 - extent_A * HINGE)
    angle_s = 360 * np.arange(count) / count
    turned_sn3 = [Rotation.from_euler("x", angle, degrees=True).apply(bent_n3) for angle in angle_s]
    return [
        State.of(core_n3, arm_n3 + extent_A * HINGE, motion=float(angle))
        for arm_n3, angle in zip(turned_sn3, angle_s, strict=True)
    ]


def linker(extent_A: float, count: int, rng: np.random.Generator) -> list[State]:
    """The arm at the ends of random tethers of 40 links, within 0.5 E of the hinge and on the side away from the core.

    Motion = the distance of the arm's centre from the hinge in Å.
    """
    core_n3, arm_n3 = _core_and_arm(extent_A, rng)
    end_s3 = np.array([_walk(TETHER_LINKS + 1, 0.5 * extent_A, rng)[-1] for _ in range(count)])
    end_s3[:, 0] = np.abs(end_s3[:, 0])
    arm_n3 = arm_n3 + extent_A * (HINGE - ARM)
    return [State.of(core_n3, arm_n3 + end_3, motion=float(np.linalg.norm(end_3))) for end_3 in end_s3]


def assembly(extent_A: float, parts: int, rng: np.random.Generator) -> list[State]:
    """The core and any of `parts` parts: state s of 2^parts holds part p where bit p of s is set; motion = how many."""
    core_n3 = chain(900, 0.42 * extent_A, rng) + extent_A * CORE
    part_p = [chain(180, 0.2 * extent_A, rng) + extent_A * place_3 for place_3 in PARTS[:parts]]
    present_s = [[part_n3 for p, part_n3 in enumerate(part_p) if s >> p & 1] for s in range(2**parts)]
    return [State.of(core_n3, *present, motion=float(len(present))) for present in present_s]


def unrelated(extent_A: float, count: int, rng: np.random.Generator) -> list[State]:
    """Chains of 500 to 1,400 atoms, radius 0.35 to 0.6 E, axes scaled by 0.5 to 1; motion = their number."""
    return [
        State.of(
            chain(int(rng.integers(500, 1401)), extent_A * rng.uniform(0.35, 0.6), rng) * rng.uniform(0.5, 1, 3),
            motion=float(s),
        )
        for s in range(count)
    ]


def _core_and_arm(extent_A: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    core_n3 = chain(900, 0.42 * extent_A, rng) + extent_A * CORE
    return core_n3, chain(350, 0.26 * extent_A, rng) + extent_A * ARM


def from_files(paths: Sequence[Path], common_frame: bool) -> list[State]:
    """A state per model of every PDB or mmCIF file; motion = their number.

    Atoms weigh their atomic number times their occupancy; waters are left out. States are centred together, which
    keeps them as they lie to each other, or each on its own where they share no frame.
    Errors: InputError for a file that cannot be read or holds no atoms.
    """
    models = [model for path in paths for model in _models(path)]
    centre_s3 = np.array([state.centre_A_3 for state in models])
    if common_frame:
        centre_s3[:] = centre_s3.mean(0)
    return [
        State(state.position_A_n3 - centre_3, state.weight_n, motion=float(s))
        for s, (state, centre_3) in enumerate(zip(models, centre_s3, strict=True))
    ]


def _models(path: Path) -> list[State]:
    import gemmi

    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as atoms ({error}); give a PDB or mmCIF file") from error
    structure.remove_waters()
    models = [_atoms(model) for model in structure]
    if not models or any(state.weight_n.sum() == 0 for state in models):
        raise InputError(f"{path}: holds no atoms, or a model without any; give a PDB or mmCIF file")
    return models


def _atoms(model) -> State:
    atoms = [site.atom for site in model.all()]
    position_A_n3 = np.array([atom.pos.tolist() for atom in atoms]).reshape(-1, 3)
    return State(position_A_n3, np.array([atom.occ * atom.element.atomic_number for atom in atoms]))
