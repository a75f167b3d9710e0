"""Poses improved off the grid: Levenberg–Marquardt steps on the rotation and the shift of every hypothesis.

    X̂ = C̃ e V(Rᵀk),   R ← exp([w]×) R:   ∂X̂/∂w = C̃ e ∇V·∂(Rᵀk)/∂w,   ∂X̂/∂t = (2πi k/D) X̂

∇V is the transform of −2πi x V(x)/D: three more maps. Steps solve (H + μ diag H) d = Re Jᴴr, H = Re JᴴJ, r = X̃ − X̂.
Axes: b images, k samples, r real and imaginary parts, p the five parameters (w, t), c maps.
"""

import dataclasses
from dataclasses import dataclass

import torch

from morphem.data.dataset import Observed
from morphem.inference.poses import turned
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume

STEPS = 5
DAMPING, EASIER, HARDER = 0.01, 0.3, 5.0
"""μ at the start, and what it is multiplied by after a step that helped, and after one that did not."""
FURTHEST = torch.tensor([0.15, 0.15, 0.15, 1.0, 1.0])
"""Radians and pixels: no step goes further."""
LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Place:
    """Poses, what they leave of the images, and the quadratic about them."""

    rotation_b33: torch.Tensor
    shift_b2: torch.Tensor
    cost_b: torch.Tensor
    """Σ|X̃ − X̂|²."""
    pull_bp: torch.Tensor
    """Re Jᴴr."""
    bend_bpp: torch.Tensor
    """Re JᴴJ."""

    def where(self, better_b: torch.Tensor, other: "Place") -> "Place":
        """The other's rows where they are better."""
        pairs = {f.name: (getattr(other, f.name), getattr(self, f.name)) for f in dataclasses.fields(self)}
        return Place(**{name: torch.where(_wide(better_b, new), new, old) for name, (new, old) in pairs.items()})


def _wide(flag_b: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return flag_b.view(-1, *[1] * (like.ndim - 1))


def with_slopes(volume: LinearVolume, c: int = 0) -> LinearVolume:
    """V, a map of the volume, and the three maps −2π x V(x)/D, whose transforms times i are ∇V."""
    box, map_zyx = volume.box, volume.map_czyx[c]
    x = (-2 * torch.pi / box) * (torch.arange(box, device=map_zyx.device) - box // 2)
    slope_czyx = torch.stack([map_zyx, map_zyx * x, map_zyx * x[:, None], map_zyx * x[:, None, None]])
    return LinearVolume.of(slope_czyx, volume.radius, volume.padding)


@torch.inference_mode()
def climb(observed: Observed, volume: LinearVolume, steps: int = STEPS) -> Place:
    """The poses of a batch after some steps from those that it has; `volume` is one of `with_slopes`."""
    place = _at(observed, volume, observed.rotation_b33, observed.shift_b2)
    damping_b = torch.full_like(place.cost_b, DAMPING)
    for _ in range(steps):
        diagonal_bp = place.bend_bpp.diagonal(dim1=1, dim2=2)
        damped_bpp = place.bend_bpp + torch.diag_embed(damping_b[:, None] * diagonal_bp + LEAST)
        step_bp = torch.linalg.solve(damped_bpp, place.pull_bp)
        furthest_p = FURTHEST.to(step_bp)
        step_bp = step_bp.clamp(-furthest_p, furthest_p)
        there = _at(observed, volume, turned(place.rotation_b33, step_bp[:, :3]), place.shift_b2 + step_bp[:, 3:])
        better_b = there.cost_b < place.cost_b
        place = place.where(better_b, there)
        damping_b = damping_b * torch.where(better_b, EASIER, HARDER)
    return place


def _at(observed: Observed, volume: LinearVolume, rotation_b33: torch.Tensor, shift_b2: torch.Tensor) -> Place:
    here = dataclasses.replace(observed, rotation_b33=rotation_b33, shift_b2=shift_b2)
    predicted_bk, slope_bkp = derivatives(here, volume)
    left_br = torch.view_as_real(observed.sample_bk - predicted_bk).flatten(1)
    slope_brp = torch.view_as_real(slope_bkp).transpose(2, 3).flatten(1, 2)
    pull_bp = (left_br[:, None] @ slope_brp)[:, 0]
    return Place(rotation_b33, shift_b2, left_br.square().sum(1), pull_bp, slope_brp.mT @ slope_brp)


def derivatives(observed: Observed, volume: LinearVolume) -> tuple[torch.Tensor, torch.Tensor]:
    """X̂ (b, k) and ∂X̂/∂(w, t) (b, k, p), at the batch's poses."""
    lattice = observed.lattice
    feature_bkc = torch.view_as_complex(
        ImageModel().features(volume, observed).unflatten(1, (-1, 2)).transpose(2, 3).contiguous()
    )
    phase_bk1 = lattice.shift_phase(observed.shift_b2)[..., None]
    value_bkc = feature_bkc * phase_bk1
    ratio_b11 = observed.ratio_b[:, None, None]
    slope_bk3 = (1j * ratio_b11) * (value_bkc[..., 1:] @ observed.rotation_b33.mT.to(value_bkc.dtype))
    kx, ky = lattice.coords_k2.to(slope_bk3.device).unbind(1)
    along_x, along_y, along_z = slope_bk3.unbind(-1)
    turn = 2j * torch.pi / lattice.box * value_bkc[..., 0]
    parts = (-ky * along_z, kx * along_z, ky * along_x - kx * along_y, kx * turn, ky * turn)
    return value_bkc[..., 0], torch.stack(parts, dim=-1)
