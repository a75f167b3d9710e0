"""A coordinate network as a volume: positions in Fourier space, and z, to the transform of the map there.

Axes: b images, h hypotheses, k samples, q latent, n points, s shells.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from morphem.models.encodings import encoding as make_encoding
from morphem.models.nets import Film, ResidualTrunk
from morphem.models.volume import LinearVolume, Volume
from morphem.physics import cube as cubes
from morphem.physics.lattice import Lattice


class FieldVolume(Volume):
    """V(k, z) = V₀(k) + gain(|k|) · net(features(k/D), z), with V(−k) = conj V(k) by construction.

    V₀ is a fixed map (the consensus) where `on_map` is set, so that the network learns what differs from it, else 0.

    The first layer is split: W_k · features + W_z · z, the second computed once an image. After it come `layers`
    residual layers of `width` and a linear layer to (Re, Im). With conditioning `film` z sets a scale and a shift of
    every layer instead. Source: Zhong et al., Nat. Methods 18, 176 (2021).
    """

    gain_s: torch.Tensor

    def __init__(
        self,
        box: int,
        radius: float,
        latent_dim: int,
        width: int = 256,
        layers: int = 3,
        encoding: str = "geometric",
        on_map: bool = False,
        conditioning: str = "input",
    ):
        super().__init__(box, radius, latent_dim)
        self.width, self.layers, self.encoding, self.on_map = width, layers, encoding, on_map
        self.conditioning = conditioning
        self.base = LinearVolume(box, radius) if on_map else None
        self.features = make_encoding(encoding, box)
        self.from_k = nn.Linear(self.features.count, width)
        by_input, by_film = (bool(latent_dim) and conditioning == way for way in ("input", "film"))
        self.from_z = nn.Linear(latent_dim, width, bias=False) if by_input else None
        self.film = Film(latent_dim, width, layers) if by_film else None
        self.trunk = ResidualTrunk(width, layers, 2)
        self.register_buffer("gain_s", torch.ones(box // 2 + 1))

    def start_from(self, consensus: LinearVolume) -> None:
        """Take the gain from the amplitude of a map's shells; with `on_map` V₀ is that map, and the gain a third."""
        self.gain_s = consensus.shell_amplitude()
        if self.base is not None:
            self.base = consensus
            self.gain_s = self.gain_s / 3

    def settings(self) -> dict[str, Any]:
        names = ("box", "radius", "latent_dim", "width", "layers", "encoding", "on_map", "conditioning")
        return {name: getattr(self, name) for name in names}

    def forward(self, point_bk3: torch.Tensor, z_bq: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The network's part of V at points in Fourier index units, complex64 (b, k); products in `dtype`."""
        dtype = dtype or self.dtype
        flipped_bk = _in_lower_half(point_bk3)
        upper_bk3 = torch.where(flipped_bk[..., None], -point_bk3, point_bk3)
        with torch.set_grad_enabled(point_bk3.requires_grad):
            feature_bke = self.features(upper_bk3).to(dtype)
        x_bkh = linear(feature_bke, self.from_k.weight.to(dtype), self.from_k.bias.to(dtype))
        if self.from_z is not None:
            x_bkh = x_bkh + self.from_z(z_bq).to(dtype)[:, None]
        film = None if self.film is None else self.film(z_bq)
        value_bk = torch.view_as_complex(self.trunk(x_bkh.relu_(), film))
        return torch.where(flipped_bk, value_bk.conj(), value_bk) * self._gain(point_bk3)

    def slices(self, matrix_bh33: torch.Tensor, lattice: Lattice, z_bhq: torch.Tensor) -> torch.Tensor:
        point_mk3 = lattice.coords_k2.to(matrix_bh33) @ matrix_bh33.flatten(0, 1)[:, :2]
        value_bhk = self(point_mk3, z_bhq.flatten(0, 1)).unflatten(0, matrix_bh33.shape[:2])
        return value_bhk if self.base is None else value_bhk + self.base.slices(matrix_bh33, lattice, z_bhq[..., :0])

    def unmasked(self, z_nq: torch.Tensor) -> torch.Tensor:
        map_nzyx = cubes.within_sphere(torch.stack([self._map(z_q) for z_q in z_nq]))
        return map_nzyx if self.base is None else map_nzyx + self.base.unmasked(z_nq[:, :0])

    def _map(self, z_q: torch.Tensor) -> torch.Tensor:
        """The network's part over the whole box, DC unknown: the half ball, 16,384 points at a time, in float32."""
        device = self.gain_s.device
        point_n3 = cubes.half_ball(self.radius).to(device)
        z_1q = z_q[None].to(device)
        tiles = [self(tile.float()[None], z_1q, torch.float32)[0] for tile in point_n3.split(16384)]
        cube_zyxc = cubes.cube_of_points(point_n3, torch.cat(tiles)[:, None], self.radius)
        return cubes.maps_of_cube(cube_zyxc, self.box, padding=1)[0]

    def _gain(self, point_bk3: torch.Tensor) -> torch.Tensor:
        """The gain of the shell that each point lies in."""
        shell_bk = point_bk3.norm(dim=-1).round().long().clamp(max=len(self.gain_s) - 1)
        return self.gain_s[shell_bk]


def _in_lower_half(point_bk3: torch.Tensor) -> torch.Tensor:
    """Points with kz < 0 (ties: ky, then kx): the network is asked at −k, and the answer conjugated."""
    x, y, z = point_bk3.unbind(-1)
    return (z < 0) | ((z == 0) & ((y < 0) | ((y == 0) & (x < 0))))
