"""The normal equations of a class, solved: voxel by voxel, or for maps that vanish outside a mask.

With B the transform of a map divided by the interpolation's window w, the step of an M-step maximises

    2 Re⟨Bδ, Y⟩ − ⟨Bδ, (W + T) Bδ⟩

where (W + T) is a symmetric j × j matrix at every voxel. Without a mask δ = B⁻¹(W + T)⁻¹Y. With one δ = m·u, and a few
conjugate gradients over u, preconditioned by the solution without a mask, raise the same quantity: each number of them
is a step that cannot lower the likelihood.

Axes: z y x cube (v flattened), j l maps of a class, p pairs (j, l ≤ j), two: real and imaginary parts.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from morphem.physics import cube as cubes

GRADIENTS = 3
"""Conjugate gradients a step: sweeps of EM follow one another, so none needs to be exact."""


@dataclass(frozen=True, eq=False)
class System:
    """W + T and Y of one class at the voxels of a half cube, within a radius."""

    matrix_zyxp: torch.Tensor
    ridge_zyxj: torch.Tensor
    data_zyx2j: torch.Tensor
    outside_zyx: torch.Tensor
    """Voxels that stay 0."""
    box: int
    padding: int

    def step(self, mask_zyx: torch.Tensor | None = None) -> torch.Tensor:
        """δ (j, z, y, x), a map."""
        if mask_zyx is None:
            return self._window_zyx * self._maps(self._solved(self.data_zyx2j))
        inward_zyx = mask_zyx / self._window_zyx
        left_jzyx = inward_zyx * self._maps(self._inside(self.data_zyx2j))
        found_jzyx, along_jzyx, gain = torch.zeros_like(left_jzyx), torch.zeros_like(left_jzyx), torch.inf
        for _ in range(GRADIENTS):
            guess_jzyx = self._window_zyx * self._maps(self._solved(self._cube(self._window_zyx * left_jzyx)))
            before, gain = gain, _dot(left_jzyx, guess_jzyx)
            if gain <= 0:
                break
            along_jzyx = guess_jzyx + gain / before * along_jzyx
            bent_jzyx = inward_zyx * self._maps(self._times(self._cube(inward_zyx * along_jzyx)))
            length = gain / max(_dot(along_jzyx, bent_jzyx), 1e-300)
            found_jzyx += length * along_jzyx
            left_jzyx -= length * bent_jzyx
        return mask_zyx * found_jzyx

    @cached_property
    def _window_zyx(self) -> torch.Tensor:
        return cubes.interpolation_window(self.box, self.padding).to(self.data_zyx2j)

    @property
    def _radius(self) -> float:
        """For which the cube has its size."""
        return (self.data_zyx2j.shape[2] - 2) / self.padding

    def _maps(self, value_zyx2j: torch.Tensor) -> torch.Tensor:
        return cubes.maps_of_cube(value_zyx2j.flatten(-2), self.box, self.padding)

    def _cube(self, map_jzyx: torch.Tensor) -> torch.Tensor:
        return cubes.cube_of_maps(map_jzyx, self._radius, self.padding).unflatten(-1, (2, -1))

    def _inside(self, value_zyx2j: torch.Tensor) -> torch.Tensor:
        return value_zyx2j.masked_fill(self.outside_zyx[..., None, None], 0)

    def _solved(self, data_zyx2j: torch.Tensor) -> torch.Tensor:
        """(W + T)⁻¹ Y."""
        return self._inside(solve_symmetric(self.matrix_zyxp, self.ridge_zyxj, data_zyx2j))

    def _times(self, value_zyx2j: torch.Tensor) -> torch.Tensor:
        """(W + T) V."""
        product_zyx2j, pair = self.ridge_zyxj[..., None, :] * value_zyx2j, 0
        for j in range(value_zyx2j.shape[-1]):
            for i in range(j + 1):
                weight_zyx1 = self.matrix_zyxp[..., pair, None]
                product_zyx2j[..., j] += weight_zyx1 * value_zyx2j[..., i]
                if i < j:
                    product_zyx2j[..., i] += weight_zyx1 * value_zyx2j[..., j]
                pair += 1
        return self._inside(product_zyx2j)


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one * other).sum(dtype=torch.float64))


def solve_symmetric(weight_vp: torch.Tensor, ridge_vj: torch.Tensor, data_vcj: torch.Tensor) -> torch.Tensor:
    """x with (W + diag(ridge)) x = data at every voxel, by LDLᵀ elimination; W packed by rows; empty systems give 0."""
    count = ridge_vj.shape[-1]
    row = [list(weight_vp[..., j * (j + 1) // 2 : (j + 1) * (j + 2) // 2].unbind(-1)) for j in range(count)]
    x = list(data_vcj.unbind(-1))
    for j in range(count):
        row[j][j] = (row[j][j] + ridge_vj[..., j]).clamp(min=1e-30)
    for j in range(count):
        for i in range(j + 1, count):
            factor_v = row[i][j] / row[j][j]
            for m in range(j + 1, i + 1):
                row[i][m] = row[i][m] - factor_v * row[m][j]
            x[i] = x[i] - factor_v[..., None] * x[j]
    for j in reversed(range(count)):
        for i in range(j + 1, count):
            x[j] = x[j] - row[i][j][..., None] * x[i]
        x[j] = x[j] / row[j][j][..., None].clamp(min=1e-30)
    return torch.stack(x, dim=-1)
