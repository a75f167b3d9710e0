"""A run's table of latents, latents.parquet: a row per image.

Axes: n images, q latent, c classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morphem.errors import InputError

MOST_CORRELATED = 32
"""Dimensions of z up to which whole covariances are kept; beyond it their diagonals."""


@dataclass(frozen=True, eq=False)
class LatentTable:
    """z and its covariance, class weights (a column of ones without classes), and half-sets (1 or 2)."""

    z_nq: np.ndarray
    cov_nqq: np.ndarray
    weight_nc: np.ndarray
    half_n: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "LatentTable":
        """Errors: InputError where it cannot be read."""
        import pandas as pd

        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}); fit the run again") from error
        z_nq = _columns(table, "z")
        cov_nqq = np.zeros((*z_nq.shape, z_nq.shape[1]), np.float32)
        for i, j in _kept(z_nq.shape[1]):
            cov_nqq[:, i, j] = cov_nqq[:, j, i] = table[f"cov_{i}_{j}"]
        weight_nc = _columns(table, "class")
        weight_nc = weight_nc if weight_nc.shape[1] else np.ones((len(table), 1), np.float32)
        return cls(z_nq, cov_nqq, weight_nc, table["half"].to_numpy())

    def write(self, path: Path) -> None:
        """index, z_0 …, cov_0_0, cov_1_0 …, class_0 … where there are classes, half."""
        import pandas as pd

        q, classes = self.z_nq.shape[1], self.weight_nc.shape[1]
        columns = {"index": np.arange(len(self.z_nq))}
        columns |= {f"z_{i}": self.z_nq[:, i] for i in range(q)}
        columns |= {f"cov_{i}_{j}": self.cov_nqq[:, i, j] for i, j in _kept(q)}
        columns |= {f"class_{c}": self.weight_nc[:, c] for c in range(classes if classes > 1 else 0)}
        pd.DataFrame(columns | {"half": self.half_n.astype(np.int8)}).to_parquet(path)


def _kept(q: int) -> list[tuple[int, int]]:
    """The entries of a covariance that are kept: the lower triangle, or the diagonal."""
    return [(i, j) for i in range(q) for j in range(i + 1) if i == j or q <= MOST_CORRELATED]


def _columns(table: Any, prefix: str) -> np.ndarray:
    """prefix_0, prefix_1 … as float32 (n, count)."""
    count = sum(name.startswith(f"{prefix}_") for name in table.columns)
    values = table[[f"{prefix}_{i}" for i in range(count)]].to_numpy(np.float32, copy=True)
    return values.reshape(len(table), count)
