"""Poses from nothing: every image against a bank of a map's slices, all orientations and shifts at once.

With Y = C̃ X̃ and slices T, the log-likelihood of an image above that of an empty map is

    S = 2 Re Σ_k conj(T) Y exp(−2πi k·t/D) − Σ_s mean_s(C̃²) Σ_{k in s} |T|²

The first term is one product of real matrices per shift; the second does not know the turn in the plane. With several
maps every view is one of a map: view v of map c has number c·V + v.
Axes: b images, c maps, v views (of all maps), p turns, s shifts, k samples, r real and imaginary parts, h hypotheses,
m shells.
"""

from dataclasses import dataclass

import numpy as np
import torch

from morphem.data.dataset import Observed
from morphem.inference.esteps import EStep, Hypotheses
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import grids

CHUNK = 64
"""Images that are scored at once: their best scores stay in a core's cache."""
INNER = 32
"""The length of products is a multiple of this: what matrix units work in."""
CROWD = 6
"""Times as many views as are kept: those from which the kept ones are picked."""
ROUNDS = 20
"""Of Sinkhorn's scaling."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The orientations (v, p, 3, 3) and shifts (s, 2) that are tried."""

    rotation_vp33: torch.Tensor
    shift_s2: torch.Tensor

    @property
    def views(self) -> int:
        return self.rotation_vp33.shape[0]

    @property
    def turns(self) -> int:
        return self.rotation_vp33.shape[1]

    @classmethod
    def of(cls, views: int, turns: int, reach: float, step: float) -> "Grid":
        rotation_vp33 = torch.from_numpy(grids.bank(views, turns)).float()
        return cls(rotation_vp33, torch.from_numpy(grids.shifts(reach, step)).float())


@dataclass(frozen=True, eq=False)
class Scores:
    """S of every image at its best turn and shift of each view, (b, v), and which turn that is."""

    score_bv: torch.Tensor
    turn_bv: torch.Tensor


class Bank:
    """The slices of maps on a grid, as matrices."""

    def __init__(self, grid: Grid, volume: LinearVolume, observed: Observed):
        self.grid, lattice = grid, observed.lattice
        value_nrc = volume.features(grid.rotation_vp33.flatten(0, 1).to(volume.map_czyx), lattice)
        value_nr = value_nrc.movedim(-1, 0).flatten(0, 1)
        self.slice_rn = _padded(value_nr).to(torch.bfloat16).mT.contiguous()
        shell_k = torch.from_numpy(lattice.shell_k).to(value_nr.device)
        power_vk = value_nr[:: grid.turns].unflatten(1, (-1, 2)).square().sum(-1)
        self.shells, self.shell_k = int(shell_k.max()) + 1, shell_k
        self.power_mv = power_vk.new_zeros(self.shells, len(power_vk)).index_add_(0, shell_k, power_vk.T)

    def scores(self, observed: Observed) -> Scores:
        """Of a batch of any length."""
        parts = [self._chunk(observed[slice(start, start + CHUNK)]) for start in range(0, len(observed), CHUNK)]
        return Scores(torch.cat([part.score_bv for part in parts]), torch.cat([part.turn_bv for part in parts]))

    def _chunk(self, observed: Observed) -> Scores:
        data_sbr = self._data(observed)
        best_bn = data_sbr[0] @ self.slice_rn
        other_bn = torch.empty_like(best_bn)
        for data_br in data_sbr[1:]:
            torch.mm(data_br, self.slice_rn, out=other_bn)
            torch.maximum(best_bn, other_bn, out=best_bn)
        found = best_bn.unflatten(1, (-1, self.grid.turns)).max(2)
        return Scores(2 * found.values.float() - self._power(observed) @ self.power_mv, found.indices)

    def _data(self, observed: Observed) -> torch.Tensor:
        """Y at every shift, as it is multiplied, (s, b, r)."""
        shift_s2 = self.grid.shift_s2.to(observed.shift_b2)
        back_sk = observed.lattice.shift_phase(-shift_s2)
        data_sbk = (observed.ctf_bk * observed.sample_bk) * back_sk[:, None]
        return _padded(torch.view_as_real(data_sbk).flatten(-2)).to(torch.bfloat16)

    def _power(self, observed: Observed) -> torch.Tensor:
        """mean_s(C̃²), (b, m)."""
        sum_mb = observed.ctf_bk.new_zeros(self.shells, len(observed)).index_add_(0, self.shell_k, observed.ctf_bk.T**2)
        return (sum_mb / torch.bincount(self.shell_k, minlength=self.shells).clamp(min=1)[:, None]).T

    def at(self, observed: Observed, view_b: torch.Tensor, turn_b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The best shift of each image at one orientation (b, 2), and S there, exact, (b)."""
        row_b = view_b * self.grid.turns + turn_b
        slice_br = self.slice_rn[:, row_b].T.float()[:, : 2 * len(observed.lattice)]
        slice_bk = torch.view_as_complex(slice_br.unflatten(1, (-1, 2)).contiguous())
        product_bk = slice_bk.conj() * observed.ctf_bk * observed.sample_bk
        phase_sk = observed.lattice.shift_phase(-self.grid.shift_s2.to(observed.shift_b2))
        cross_bs = (product_bk @ phase_sk.T).real
        energy_b = (slice_bk.abs() * observed.ctf_bk).square().sum(1)
        best = cross_bs.max(1)
        return self.grid.shift_s2.to(observed.shift_b2)[best.indices], 2 * best.values - energy_b


def _padded(value: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(value, (0, -value.shape[-1] % INNER))


class PoseSearch(EStep):
    """The `keep` best views of every image that lie `apart` from each other, each at its best turn and shift.

    `balanced`: instead one view is drawn such that each is taken equally often in the batch, which keeps a random
    start from collapsing onto few views; `rng` draws.
    """

    def __init__(
        self,
        grid: Grid,
        keep: int = 1,
        apart_rad: float = 0.0,
        balanced: bool = False,
        rng: torch.Generator | None = None,
    ):
        super().__init__()
        self.grid, self.keep, self.apart_rad, self.balanced, self.rng = grid, keep, apart_rad, balanced, rng
        self._bank: tuple[LinearVolume, Bank] | None = None

    @torch.inference_mode()
    def forward(self, observed: Observed, volume: LinearVolume, model: ImageModel) -> Hypotheses:
        bank = self._bank_of(volume, observed)
        scores = bank.scores(observed)
        view_bh = drawn(scores.score_bv, self.rng)[:, None] if self.balanced else self._best(scores)
        return self._hypotheses(bank, observed, scores, view_bh)

    def _bank_of(self, volume: LinearVolume, observed: Observed) -> Bank:
        """That of the volume, kept from batch to batch."""
        if self._bank is None or self._bank[0] is not volume:
            self._bank = volume, Bank(self.grid, volume, observed)
        return self._bank[1]

    def _best(self, scores: Scores) -> torch.Tensor:
        """(b, h): the best view, then the best of those that are far enough from all before."""
        if self.keep == 1:
            return scores.score_bv.argmax(1, keepdim=True)
        found = scores.score_bv.topk(min(CROWD * self.keep, scores.score_bv.shape[1]))
        left_bc = found.values.clone()
        class_bc = found.indices // self.grid.views
        rotation_bc33 = self.grid.rotation_vp33[
            found.indices % self.grid.views, scores.turn_bv.gather(1, found.indices)
        ]
        row_b, chosen = torch.arange(len(left_bc)), []
        for _ in range(self.keep):
            best_b = left_bc.argmax(1)
            chosen.append(found.indices[row_b, best_b])
            agreement_bc = (rotation_bc33 * rotation_bc33[row_b, best_b][:, None]).sum((2, 3))
            same_bc = class_bc == class_bc[row_b, best_b][:, None]
            left_bc[same_bc & (agreement_bc > 1 + 2 * np.cos(self.apart_rad))] = -torch.inf
            left_bc[row_b, best_b] = -torch.inf
        return torch.stack(chosen, 1)

    def _hypotheses(self, bank: Bank, observed: Observed, scores: Scores, view_bh: torch.Tensor) -> Hypotheses:
        turn_bh = scores.turn_bv.gather(1, view_bh)
        found = [bank.at(observed, view_bh[:, h], turn_bh[:, h]) for h in range(view_bh.shape[1])]
        shift_bh2, score_bh = (torch.stack(part, 1) for part in zip(*found, strict=True))
        rotation_bh33 = self.grid.rotation_vp33[view_bh % self.grid.views, turn_bh].to(shift_bh2)
        return posed(view_bh // self.grid.views, rotation_bh33, shift_bh2, score_bh)


def posed(
    class_bh: torch.Tensor, rotation_bh33: torch.Tensor, shift_bh2: torch.Tensor, score_bh: torch.Tensor
) -> Hypotheses:
    """Hypotheses of class and pose alone, weighted by exp(S)."""
    like = score_bh[..., None]
    return Hypotheses(
        class_bh,
        rotation_bh33,
        shift_bh2,
        score_bh.log_softmax(1),
        torch.ones_like(like),
        torch.zeros_like(like[..., None]),
        score_bh.logsumexp(1),
        torch.zeros_like(score_bh[:, 0]),
    )


def drawn(score_bv: torch.Tensor, rng: torch.Generator | None = None) -> torch.Tensor:
    """A view for every image, (b), from a plan in which each view is taken equally often.

    L = (S − max_v S)/τ, τ = median_i(max_v S − mean_v S)/6; Sinkhorn's u_i = −log Σ_v e^{L + w}, w_v = log(b/v) −
    log Σ_i e^{L + u}; then v_i is drawn from softmax_v(L + u + w).
    """
    best_b = score_bv.max(1).values
    heat = ((best_b - score_bv.mean(1)).median() / 6).clamp(min=1e-6)
    log_bv = (score_bv - best_b[:, None]) / heat
    w_v = torch.zeros_like(log_bv[0])
    share = float(np.log(len(log_bv) / log_bv.shape[1]))
    for _ in range(ROUNDS):
        u_b = -(log_bv + w_v).logsumexp(1)
        w_v = share - (log_bv + u_b[:, None]).logsumexp(0)
    return torch.multinomial((log_bv + w_v).softmax(1), 1, generator=rng)[:, 0]
