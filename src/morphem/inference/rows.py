"""Parameters with a row for every image, and their optimiser: a row that is not in the batch does not move.

Axes: n images, r rows of a batch, c columns.
"""

from collections.abc import Iterable

import torch
from torch import nn


class Rows(nn.Embedding):
    """A table (n, c), 0 at the start. `rows(index)` gives rows; their gradient is sparse."""

    def __init__(self, count: int, columns: int, learning_rate: float):
        super().__init__(count, columns, sparse=True)
        self.learning_rate = learning_rate
        nn.init.zeros_(self.weight)


def tables_in(module: nn.Module) -> list[Rows]:
    """Every table of a module."""
    return [part for part in module.modules() if isinstance(part, Rows)]


class RowAdam(torch.optim.Optimizer):
    """Adam whose moments and number of steps belong to each row: only rows with a gradient change.

    m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², x ← x − lr · (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε), t the row's own count. With
    one count for all, or with moments that decay in every step, rows would drift while their images are not seen.
    Source: Kingma and Ba, Adam, ICLR (2015).
    """

    def __init__(self, tables: Iterable[Rows], betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-12):
        groups = [{"params": [table.weight], "lr": table.learning_rate} for table in tables]
        super().__init__(groups, {"betas": betas, "eps": eps})
        for group in groups:
            (table_nc,) = group["params"]
            moments = {name: torch.zeros_like(table_nc, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
            self.state[table_nc] = moments | {"steps_taken": table_nc.new_zeros(len(table_nc), requires_grad=False)}

    @torch.no_grad()
    def step(self, keep: torch.Tensor | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of every row with a gradient; where `keep` is true nothing changes."""
        for group in self.param_groups:
            for table_nc in group["params"]:
                if table_nc.grad is not None:
                    self._update(table_nc, group, keep)

    def _update(self, table_nc: torch.Tensor, group: dict, keep: torch.Tensor | None) -> None:
        assert table_nc.grad is not None
        gradient, state, (b1, b2) = table_nc.grad.coalesce(), self.state[table_nc], group["betas"]
        row_r, value_rc = gradient.indices()[0], gradient.values()
        step_r = state["steps_taken"][row_r] + 1
        first_rc = torch.lerp(value_rc, state["exp_avg"][row_r], b1)
        second_rc = torch.lerp(value_rc**2, state["exp_avg_sq"][row_r], b2)
        slope_rc = first_rc / (1 - b1**step_r)[:, None]
        size_rc = (second_rc / (1 - b2**step_r)[:, None]).sqrt() + group["eps"]
        new = {"steps_taken": step_r, "exp_avg": first_rc, "exp_avg_sq": second_rc}
        for old, value in [(table_nc, table_nc[row_r] - group["lr"] * slope_rc / size_rc)] + [
            (state[name], value) for name, value in new.items()
        ]:
            old[row_r] = value if keep is None else torch.where(keep, old[row_r], value)
