"""Poses improved off the grid: Levenberg–Marquardt steps on the rotation, the shift and the latent of every hypothesis.

    X̂ = C̃ e Σ_j φ_j V_j(Rᵀk),   φ = [1, z],   R ← exp([w]×) R:
    ∂X̂/∂w = C̃ e ∇V·∂(Rᵀk)/∂w,   ∂X̂/∂t = (2πi k/D) X̂,   ∂X̂/∂z_j = C̃ e V_j(Rᵀk),   V = Σ_j φ_j V_j

∇V_j is the transform of −2πi x V_j(x)/D: three more maps. Steps solve (H + μ diag H) d = Re Jᴴr, H = Re JᴴJ, r = X̃ − X̂,
and bring down Σ|r|² + ½|z|²: z ~ N(0, 1), and −Σ|r|² is the log-likelihood. Of one map there is no z. A prior may hold
the poses near those that images come with.
Axes: b images, k samples, r real and imaginary parts, p parameters (w, t, z), q latent, j features, c maps.
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
FURTHEST, FURTHEST_Z = (0.15, 0.15, 0.15, 1.0, 1.0), 2.0
"""Radians, pixels and deviations: no step goes further."""
LEAST = 1e-6
FREE = {"shift": (0, 0, 0, 1, 1), "rotation": (1, 1, 1, 0, 0), "both": (1, 1, 1, 1, 1)}
"""Which of (w, t) move."""
UNKNOWN = torch.full((5,), torch.inf)
"""No prior."""


@dataclass(frozen=True, eq=False)
class Place:
    """Poses, what they leave of the images, and the quadratic about them."""

    rotation_b33: torch.Tensor
    shift_b2: torch.Tensor
    z_bq: torch.Tensor
    moved_bp: torch.Tensor
    """ω and δ from the poses that the batch came with: R = exp([ω]×) R₀, t = t₀ + δ."""
    cost_b: torch.Tensor
    """Σ|X̃ − X̂|² + ½|z|² + ½|ω/σ|² + ½|δ/σ|²."""
    pull_bp: torch.Tensor
    """Minus half of its slope."""
    bend_bpp: torch.Tensor
    """Half of its curvature."""

    def cpu(self) -> "Place":
        return Place(**{f.name: getattr(self, f.name).cpu() for f in dataclasses.fields(self)})

    def where(self, better_b: torch.Tensor, other: "Place") -> "Place":
        """The other's rows where they are better."""
        pairs = {f.name: (getattr(other, f.name), getattr(self, f.name)) for f in dataclasses.fields(self)}
        return Place(**{name: torch.where(_wide(better_b, new), new, old) for name, (new, old) in pairs.items()})


def _wide(flag_b: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return flag_b.view(-1, *[1] * (like.ndim - 1))


def with_slopes(volume: LinearVolume, maps: slice = slice(0, 1)) -> LinearVolume:
    """V_j, some maps of a volume, each with its three −2π x V_j(x)/D, whose transforms times i are ∇V_j."""
    box, map_jzyx = volume.box, volume.map_czyx[maps]
    x = (-2 * torch.pi / box) * (torch.arange(box, device=map_jzyx.device) - box // 2)
    parts = map_jzyx, map_jzyx * x, map_jzyx * x[:, None], map_jzyx * x[:, None, None]
    return LinearVolume.of(torch.stack(parts, 1).flatten(0, 1), volume.radius, volume.padding)


@torch.inference_mode()
def climb(
    observed: Observed,
    volume: LinearVolume,
    steps: int = STEPS,
    free: str = "both",
    sigma_p: torch.Tensor = UNKNOWN,
) -> Place:
    """The poses of a batch after some steps from those that it has, from z = 0; `volume` is one of `with_slopes`.

    `sigma_p`: deviations of the prior of (ω, δ) about them, in radians and pixels.
    """
    z_bq = observed.shift_b2.new_zeros(len(observed), len(volume.map_czyx) // 4 - 1)
    about = _About(observed, volume, torch.tensor(FREE[free]).to(z_bq), (sigma_p**-2).to(z_bq))
    place = about.at(observed.rotation_b33, observed.shift_b2, z_bq)
    furthest_p = torch.tensor([*FURTHEST, *[FURTHEST_Z] * z_bq.shape[1]]).to(place.pull_bp)
    damping_b = torch.full_like(place.cost_b, DAMPING)
    for _ in range(steps):
        diagonal_bp = place.bend_bpp.diagonal(dim1=1, dim2=2)
        damped_bpp = place.bend_bpp + torch.diag_embed(damping_b[:, None] * diagonal_bp + LEAST)
        step_bp = torch.linalg.solve(damped_bpp, place.pull_bp)
        turn_b3, move_b2, change_bq = step_bp.clamp(-furthest_p, furthest_p).split([3, 2, z_bq.shape[1]], dim=1)
        pose = turned(place.rotation_b33, turn_b3), place.shift_b2 + move_b2, place.z_bq + change_bq
        there = about.at(*pose)
        better_b = there.cost_b < place.cost_b
        place = place.where(better_b, there)
        damping_b = damping_b * torch.where(better_b, EASIER, HARDER)
    return place


@dataclass(frozen=True, eq=False)
class _About:
    """What steps are taken on: a batch at given poses, which parameters move, and how strongly they are held."""

    observed: Observed
    volume: LinearVolume
    free_5: torch.Tensor
    held_5: torch.Tensor

    def at(self, rotation_b33: torch.Tensor, shift_b2: torch.Tensor, z_bq: torch.Tensor) -> Place:
        given = self.observed
        here = dataclasses.replace(given, rotation_b33=rotation_b33, shift_b2=shift_b2)
        predicted_bk, slope_bkp = derivatives(here, self.volume, z_bq)
        slope_bkp[..., :5] *= self.free_5
        left_br = torch.view_as_real(given.sample_bk - predicted_bk).flatten(1)
        slope_brp = torch.view_as_real(slope_bkp).transpose(2, 3).flatten(1, 2)
        turn_b3 = vectors(rotation_b33 @ given.rotation_b33.mT)
        moved_bp = torch.cat([turn_b3, shift_b2 - given.shift_b2], dim=1)
        off_bp, held_p = torch.cat([moved_bp, z_bq], dim=1), torch.cat([self.held_5, torch.ones_like(z_bq[0])])
        pull_bp = (left_br[:, None] @ slope_brp)[:, 0] - 0.5 * held_p * off_bp
        bend_bpp = slope_brp.mT @ slope_brp + 0.5 * torch.diag(held_p)
        cost_b = left_br.square().sum(1) + 0.5 * (held_p * off_bp.square()).sum(1)
        return Place(rotation_b33, shift_b2, z_bq, moved_bp, cost_b, pull_bp, bend_bpp)


def vectors(rotation_b33: torch.Tensor) -> torch.Tensor:
    """ω (b, 3) of exp([ω]×), for angles well below 180°."""
    cross_b33 = 0.5 * (rotation_b33 - rotation_b33.mT)
    axis_b3 = torch.stack([cross_b33[:, 2, 1], cross_b33[:, 0, 2], cross_b33[:, 1, 0]], dim=1)
    sine_b1 = axis_b3.norm(dim=1, keepdim=True)
    cosine_b1 = 0.5 * (rotation_b33.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) - 1)
    return axis_b3 * (torch.atan2(sine_b1, cosine_b1) / sine_b1.clamp(min=1e-12)).where(sine_b1 > 1e-6, 1.0)


def derivatives(
    observed: Observed, volume: LinearVolume, z_bq: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """X̂ (b, k) and ∂X̂/∂(w, t, z) (b, k, p), at the batch's poses."""
    lattice, z_bq = observed.lattice, observed.shift_b2[:, :0] if z_bq is None else z_bq
    feature_bkc = torch.view_as_complex(
        ImageModel().features(volume, observed).unflatten(1, (-1, 2)).transpose(2, 3).contiguous()
    )
    feature_bkj4 = (feature_bkc * lattice.shift_phase(observed.shift_b2)[..., None]).unflatten(2, (-1, 4))
    phi_bj = torch.nn.functional.pad(z_bq, (1, 0), value=1.0).to(feature_bkj4)
    value_bk4 = torch.einsum("bkjs,bj->bks", feature_bkj4, phi_bj)
    slope_bk3 = 1j * observed.ratio_b[:, None, None] * (value_bk4[..., 1:] @ observed.rotation_b33.mT.to(value_bk4))
    kx, ky = lattice.coords_k2.to(slope_bk3.device).unbind(1)
    along_x, along_y, along_z = slope_bk3.unbind(-1)
    turn = 2j * torch.pi / lattice.box * value_bk4[..., 0]
    parts = (-ky * along_z, kx * along_z, ky * along_x - kx * along_y, kx * turn, ky * turn)
    return value_bk4[..., 0], torch.cat([torch.stack(parts, dim=-1), feature_bkj4[:, :, 1:, 0]], dim=-1)
