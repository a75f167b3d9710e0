"""The M-step of network volumes: one step of stochastic gradient a batch.

Axes: b images, n all images, h hypotheses, k samples, q latent, g optics groups, s shells.
"""

from dataclasses import dataclass

import torch

from morphem.data.dataset import Dataset, Observed
from morphem.errors import RunError
from morphem.inference.esteps import EStep, Hypotheses
from morphem.inference.msteps import MStep
from morphem.inference.rows import RowAdam, tables_in
from morphem.models.image_model import ImageModel
from morphem.models.volume import Volume
from morphem.physics.noise import ShellPower

TILE = 4096
"""So many samples, or one image, go through a network at a time: activations stay in cache."""
IN_A_ROW = 10
"""So many batches in a row that are not finite end a sweep; so does a hundredth of all of them, if more than one."""


def images_at_once(samples: int, tile: int = TILE) -> int:
    """How many images of so many samples go through a network together."""
    return max(1, tile // samples)


class DivergedError(RunError):
    """The loss is not a number, again and again."""


@dataclass(frozen=True)
class SweepLoss:
    """Means of one sweep: Σ|X̃ − X̂|²/P (1 at the truth), the penalty per image, and |X̃ − X̂|² per group and shell."""

    images: int
    loss: float
    penalty: float
    power_gs: torch.Tensor
    skipped: int
    """Batches whose loss or gradient was not finite."""


class Gradient(MStep):
    """One Adam step a batch on (Σ|X̃ − X̂(z)|² + penalty)/P with one draw z = μ + Lε, LLᵀ = Cov z.

    The volume works on about `tile` samples at a time, so that activations stay in cache; the E-step's own gradient
    follows from those of z, rotation and shift. Only samples within `radius` count. A batch whose loss or gradient is
    not finite changes nothing; the device is not waited for to know that. The caller sets `draw_nq`, so that ε is a
    function of seed, epoch and image. What was believed of each image's z is kept in `mean_nq` and `variance_nq`.
    """

    def __init__(
        self,
        volume: Volume,
        estep: EStep,
        model: ImageModel,
        learning_rate: float,
        dataset: Dataset,
        tile: int = TILE,
    ):
        self.volume, self.estep, self.model, self.tile = volume, estep, model, tile
        self.particles, self.lattice = dataset.particles, dataset.lattice
        tables = tables_in(estep)
        sparse = {id(table.weight) for table in tables}
        self.dense = [p for p in [*volume.parameters(), *estep.parameters()] if id(p) not in sparse]
        self.optimizer = torch.optim.Adam(self.dense, lr=learning_rate, fused=True)
        self.row_optimizer = RowAdam(tables) if tables else None
        self.draw_nq = torch.zeros(0)
        shape, device = (len(dataset), volume.latent_dim), self.dense[0].device
        self.mean_nq, self.variance_nq = (torch.zeros(shape, device=device) for _ in range(2))
        self.last: SweepLoss | None = None
        self.begin(self.lattice.radius)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """That of the networks, and that of the tables where there are any."""
        return [self.optimizer, *([self.row_optimizer] if self.row_optimizer else [])]

    def begin(self, radius: float, batches: int = 10**9) -> None:
        """Empty the sweep's sums; the sweep to come counts samples within `radius` and has so many batches."""
        device = self.dense[0].device
        self.radius, self.batches = radius, batches
        self.power = ShellPower(self.lattice.within(radius), len(self.particles.optics_names), device)
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)  # images, loss, penalty
        self.steps = 0
        self.skipped, self.in_a_row, self.last_bad = (
            torch.zeros((), dtype=torch.long, device=device) for _ in range(3)
        )

    def update(self, observed: Observed, hypotheses: Hypotheses) -> None:
        observed = observed.prefix(self.radius)
        self._remember(observed, hypotheses)
        beliefs = self._draw(observed, hypotheses), hypotheses.rotation_bh33, hypotheses.shift_bh2
        leaves = [value.detach().requires_grad_(value.requires_grad) for value in beliefs]
        self._forget_gradients()
        power_bk = torch.cat([self._tile(observed, leaves, rows) for rows in self._rows(observed)])
        penalty = hypotheses.penalty_b.sum()
        self._backward(beliefs, leaves, penalty / power_bk.numel())
        self._step(observed, power_bk, penalty.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None])

    def _remember(self, observed: Observed, hypotheses: Hypotheses) -> None:
        index_b = torch.as_tensor(observed.index_b, device=self.mean_nq.device)
        self.mean_nq[index_b] = hypotheses.z_bhq[:, 0].detach()
        self.variance_nq[index_b] = hypotheses.z_cov_bhqq[:, 0].detach().diagonal(dim1=-2, dim2=-1)

    def _draw(self, observed: Observed, hypotheses: Hypotheses) -> torch.Tensor:
        """z = μ + Lε."""
        mean_bq = hypotheses.z_bhq[:, 0]
        if hypotheses.z_factor_bqq is None:
            return mean_bq
        draw_bq = self.draw_nq[torch.as_tensor(observed.index_b)].to(mean_bq)
        return mean_bq + torch.einsum("bij,bj->bi", hypotheses.z_factor_bqq, draw_bq)

    def _forget_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _rows(self, observed: Observed) -> list[slice]:
        size = images_at_once(len(observed.lattice), self.tile)
        return [slice(start, start + size) for start in range(0, len(observed), size)]

    def _tile(self, observed: Observed, leaves: list[torch.Tensor], rows: slice) -> torch.Tensor:
        """Add some images' gradient; |X̃ − X̂|², (rows, k)."""
        z_bq, rotation_bh33, shift_bh2 = (leaf[rows] for leaf in leaves)
        part = observed[rows]
        residual_bk = self.model.residual(self.volume, part, rotation_bh33, shift_bh2, z_bq[:, None])[:, 0]
        power_bk = residual_bk.real**2 + residual_bk.imag**2
        (power_bk.sum() / (len(observed) * len(observed.lattice))).backward()
        return power_bk.detach()

    @staticmethod
    def _backward(beliefs: tuple[torch.Tensor, ...], leaves: list[torch.Tensor], penalty: torch.Tensor) -> None:
        """From what the volume was given, and the penalty, back into the E-step."""
        given = [(value, leaf.grad) for value, leaf in zip(beliefs, leaves, strict=True) if leaf.grad is not None]
        roots, gradients = [value for value, _ in given], [gradient for _, gradient in given]
        if penalty.requires_grad:
            roots, gradients = [*roots, penalty], [*gradients, torch.ones_like(penalty)]
        if roots:
            torch.autograd.backward(roots, gradients)

    def _step(self, observed: Observed, power_bk: torch.Tensor, penalty: torch.Tensor, more: list) -> None:
        gradients = [p.grad for p in self.dense if p.grad is not None]
        steepness = torch.nn.utils.get_total_norm([*gradients, *more])
        bad = ~torch.isfinite(steepness + power_bk.sum() + penalty)
        _step_unless(bad, self.optimizer)
        if self.row_optimizer:
            self.row_optimizer.step(bad)
        self._count(observed, power_bk, penalty, bad)

    def _count(self, observed: Observed, power_bk: torch.Tensor, penalty: torch.Tensor, bad: torch.Tensor) -> None:
        counted_b = torch.where(bad, 0.0, 1.0).expand(len(observed))
        loss_b = torch.where(bad, 0.0, power_bk.mean(1))
        self.sums += torch.stack([counted_b.sum(), loss_b.sum(), torch.where(bad, 0.0, penalty)]).double()
        groups_b = self.particles.optics_n[observed.index_b]
        self.power.add_power(torch.where(bad, 0.0, power_bk), groups_b, counted_b)
        self.skipped += bad
        self.last_bad = torch.where(bad, int(observed.index_b[0]), self.last_bad)
        self.in_a_row = torch.where(bad, self.in_a_row + 1, 0)
        self.steps += 1
        if bad.device.type == "cpu" or self.steps % IN_A_ROW == 0:
            self._refuse_divergence()

    def _refuse_divergence(self) -> None:
        if int(self.in_a_row) < IN_A_ROW and int(self.skipped) <= max(1, self.batches // 100):
            return
        where = f"last in the batch that starts with row {int(self.last_bad) + 1}"
        raise DivergedError(f"the loss is not a number in {int(self.skipped)} batches, {where}")

    def merge(self, other: "Gradient") -> None:
        self.sums += other.sums
        self.skipped += other.skipped
        self.power.merge(other.power)

    def finish(self) -> None:
        """The sums' means, in `last`."""
        images, loss, penalty = self.sums.tolist()
        if images == 0:
            raise DivergedError("the loss is not a number in any batch")
        self.last = SweepLoss(int(images), loss / images, penalty / images, self.power.mean(), int(self.skipped))

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next step depends on, and the sums so far, beside the parameters themselves."""
        state = {f"adam.{i}.{name}": value for i, name, value in _moments(self.optimizer)}
        if self.row_optimizer:
            state |= {f"rows.{i}.{name}": value for i, name, value in _moments(self.row_optimizer)}
        sums = ("sums", "skipped", "in_a_row", "mean_nq", "variance_nq")
        power = {"power.power_gs": self.power.power_gs, "power.images_g": self.power.images_g}
        return state | power | {name: getattr(self, name) for name in sums}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take up a `state`, after `begin` with the same radius."""
        _load_moments(self.optimizer, state, "adam.")
        if self.row_optimizer:
            _load_moments(self.row_optimizer, state, "rows.")
        for name in ("sums", "skipped", "in_a_row", "mean_nq", "variance_nq"):
            setattr(self, name, state[name].to(getattr(self, name)))
        self.power.power_gs, self.power.images_g = (
            state[f"power.{name}"].to(self.power.power_gs) for name in ("power_gs", "images_g")
        )


def _step_unless(bad: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """A fused step that changes nothing where `bad`: it reads these attributes, as gradient scalers set them."""
    setattr(optimizer, "found_inf", bad.float())  # noqa: B010
    setattr(optimizer, "grad_scale", None)  # noqa: B010
    optimizer.step()


def _moments(optimizer: torch.optim.Optimizer):
    """(number of the parameter, name, value) of every moment."""
    for i, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            yield i, name, value


def _load_moments(optimizer: torch.optim.Optimizer, state: dict[str, torch.Tensor], prefix: str) -> None:
    whole = optimizer.state_dict() | {"state": {}}
    for key, value in state.items():
        if key.startswith(prefix):
            i, _, name = key.removeprefix(prefix).partition(".")
            whole["state"].setdefault(int(i), {})[name] = value
    optimizer.load_state_dict(whole)
