"""Radial noise spectra and the preparation of images.

Axes: b images, d box side, k samples, s shells (s = round|k|), g optics groups.
"""

import numpy as np
import torch

from morphem.physics.lattice import Lattice


def radii(box: int, dimensions: int = 2) -> torch.Tensor:
    """Distance of every pixel or voxel from the one at D/2, in units of half the box."""
    x = (torch.arange(box) - box // 2) / (box / 2)
    return sum(axis**2 for axis in torch.meshgrid(*[x] * dimensions, indexing="ij")).sqrt()  # type: ignore[union-attr]


def window(r: torch.Tensor, inner: float = 0.85, outer: float = 0.99) -> torch.Tensor:
    """1 to r = inner, a cosine to 0 at r = outer."""
    return 0.5 + 0.5 * torch.cos(torch.pi * ((r - inner) / (outer - inner)).clamp(0, 1))


def prepare(image_bdd: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    """Images to packed samples: subtract the mean of pixels with r > 0.85, window, transform; complex64 (b, k)."""
    r_dd = radii(lattice.box).to(image_bdd.device)
    background_b = image_bdd[:, r_dd > 0.85].mean(1)
    return lattice.pack((image_bdd - background_b[:, None, None]) * window(r_dd))


class ShellPower:
    """Running mean of |·|² per optics group and shell, in float64; sums of shards `merge`."""

    def __init__(self, lattice: Lattice, groups: int, device: torch.device | str = "cpu"):
        self.shell_k = torch.as_tensor(lattice.shell_k, device=device)
        self.shells = int(lattice.shell_k[-1]) + 1
        self.power_gs = torch.zeros(groups, self.shells, dtype=torch.float64, device=device)
        self.images_g = torch.zeros(groups, dtype=torch.float64, device=device)

    def add(self, sample_bk: torch.Tensor, group_b: np.ndarray) -> None:
        """Count (b, k) samples of images that belong to groups `group_b`."""
        self.add_power(sample_bk.real**2 + sample_bk.imag**2, group_b)

    def add_power(self, power_bk: torch.Tensor, group_b: np.ndarray, counted_b: torch.Tensor | None = None) -> None:
        """Count the squared moduli of samples; an image counts once, or `counted_b` times."""
        power_bk = power_bk.to(self.shell_k.device)
        power_bs = power_bk.new_zeros(len(power_bk), self.shells).index_add_(1, self.shell_k, power_bk).double()
        group = torch.as_tensor(group_b, device=power_bs.device)
        counted_b = torch.ones_like(power_bs[:, 0]) if counted_b is None else counted_b.to(power_bs)
        self.power_gs.index_add_(0, group, power_bs)
        self.images_g.index_add_(0, group, counted_b)

    def merge(self, other: "ShellPower") -> None:
        self.power_gs += other.power_gs
        self.images_g += other.images_g

    def mean(self) -> torch.Tensor:
        """(g, s) mean power, on the CPU; shells and groups without samples have 1."""
        count_s = torch.bincount(self.shell_k, minlength=self.shells).double()
        weight_gs = self.images_g[:, None] * count_s
        return torch.where((weight_gs > 0) & (self.power_gs > 0), self.power_gs / weight_gs.clamp(min=1), 1.0).cpu()
