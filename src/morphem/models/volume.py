"""What a volume may be: something that gives slices of its Fourier transform, and maps.

Axes: b images, h hypotheses, k samples, q latent, c maps, j features, n cube side.
"""

import abc
from typing import Any

import torch
from torch import nn

from morphem.physics import cube as cubes
from morphem.physics.lattice import Lattice
from morphem.physics.slice import sample


class Volume(nn.Module, abc.ABC):
    """V(·, z). V(−k) = conj V(k); maps are in image units: their sum along z is the image before the CTF.

    A mask, where one is set, multiplies every map; slices do not know it.
    """

    dtype: torch.dtype = torch.float32
    """Of network products, where there are any; maps are always float32."""
    mask_zyx: torch.Tensor
    """(box, box, box), or one number where there is no mask."""

    def __init__(self, box: int, radius: float, latent_dim: int):
        super().__init__()
        self.box, self.radius, self.latent_dim = box, radius, latent_dim
        self.register_buffer("mask_zyx", torch.ones(()))
        self.base: LinearVolume | None = None
        """The fixed map that the volume adds to, where it does."""

    @abc.abstractmethod
    def slices(self, matrix_bh33: torch.Tensor, lattice: Lattice, z_bhq: torch.Tensor) -> torch.Tensor:
        """V(k @ M, z), complex64 (b, h, k); M is the rotation, times the ratio of pixel sizes where they differ."""

    @abc.abstractmethod
    def unmasked(self, z_nq: torch.Tensor) -> torch.Tensor:
        """One map (box, box, box) for each row of z, float32 (n, z, y, x), without the mask."""

    def maps(self, z_nq: torch.Tensor, box: int | None = None) -> torch.Tensor:
        """One map for each row of z, masked, float32 (n, z, y, x); with `box` Fourier-cropped, densities kept."""
        map_nzyx = self.unmasked(z_nq) * self.mask_zyx
        return map_nzyx if box in (None, self.box) else cubes.crop(map_nzyx, box)

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """The arguments that build this volume again; with `state_dict` they are all of it."""


class LinearVolume(Volume):
    """V = Σ_j φ_j V_j with φ = [1, z]: a mean and q maps, read from a padded cube by trilinear interpolation."""

    map_czyx: torch.Tensor

    def __init__(self, box: int, radius: float, latent_dim: int = 0, padding: int = 2):
        super().__init__(box, radius, latent_dim)
        self.padding = padding
        self.register_buffer("map_czyx", torch.zeros(latent_dim + 1, box, box, box))
        self._cubes_of: torch.Tensor | None = None
        self._cubes: dict[tuple[int, int], torch.Tensor] = {}
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "_cubes_of", None))

    @classmethod
    def of(cls, map_czyx: torch.Tensor, radius: float, padding: int = 2) -> "LinearVolume":
        """The volume of a mean and its maps (c, box, box, box)."""
        volume = cls(map_czyx.shape[-1], radius, len(map_czyx) - 1, padding)
        volume.map_czyx = map_czyx
        return volume

    def settings(self) -> dict[str, Any]:
        return {"box": self.box, "radius": self.radius, "latent_dim": self.latent_dim, "padding": self.padding}

    def slices(self, matrix_bh33: torch.Tensor, lattice: Lattice, z_bhq: torch.Tensor) -> torch.Tensor:
        """Σ_j φ_j V_j(k @ M), with the maps divided by the window that interpolation multiplies by."""
        value_bkj = self.features(matrix_bh33.flatten(0, 1), lattice)
        phi_bj1 = torch.nn.functional.pad(z_bhq.flatten(0, 1), (1, 0), value=1.0)[..., None].to(value_bkj)
        slice_bk = torch.view_as_complex((value_bkj @ phi_bj1).unflatten(1, (-1, 2))[..., 0])
        return slice_bk.unflatten(0, matrix_bh33.shape[:2])

    def features(self, matrix_b33: torch.Tensor, lattice: Lattice, maps: slice = slice(None)) -> torch.Tensor:
        """V_c(k @ M) of every map, real (b, 2k, c): sample k's real part in row 2k, its imaginary one in row 2k + 1."""
        cube_zyxc = self.cube_zyxc(maps)
        odd_c = cubes.odd_channels(cube_zyxc.shape[-1] // 2)
        value_bkc = sample(cube_zyxc, self.padding * matrix_b33, lattice.coords_k2, odd_c)
        return value_bkc.unflatten(-1, (2, -1)).flatten(1, 2)

    def unmasked(self, z_nq: torch.Tensor) -> torch.Tensor:
        return self.map_czyx[0] + torch.einsum("nq,qzyx->nzyx", z_nq.float(), self.map_czyx[1:])

    def shell_amplitude(self) -> torch.Tensor:
        """Root mean square of the mean map's transform on every shell up to Nyquist, (s,)."""
        cube_zyxc = cubes.cube_of_maps(self.map_czyx[:1], self.box // 2 - 1, padding=1)
        shell_v = cubes.voxel_radius(cube_zyxc, padding=1).round().long().flatten()
        power_v = (cube_zyxc**2).sum(-1).flatten()
        total_s = power_v.new_zeros(int(shell_v.max()) + 1).index_add_(0, shell_v, power_v)
        return (total_s / torch.bincount(shell_v)).sqrt()[: self.box // 2 + 1]

    def cube_zyxc(self, maps: slice = slice(None)) -> torch.Tensor:
        """The padded cube that slices of some maps are read from; kept until the maps change.

        Reading multiplies a cube's map by the interpolation's window, so the maps are divided by it.
        """
        if self._cubes_of is not self.map_czyx:
            self._cubes_of, self._cubes = self.map_czyx, {}
        start, stop, _ = maps.indices(len(self.map_czyx))
        if (start, stop) not in self._cubes:
            window_zyx = cubes.interpolation_window(self.box, self.padding).to(self.map_czyx)
            sharp_czyx = self.map_czyx[start:stop] / window_zyx
            self._cubes[start, stop] = cubes.cube_of_maps(sharp_czyx, self.radius, self.padding)
        return self._cubes[start, stop]
