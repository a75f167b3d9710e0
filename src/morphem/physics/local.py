"""Maps taken apart into bands of shells and soft regions of space, so that every cell can be judged on its own.

Bands are β_b(|k|) with Σ_b β_b = 1: they fall by squared cosines over `BOX_PARTS`⁻¹ of the box, so that Σ_b β_b V = V.
Regions are cubes of the same share of the box's side; what is measured in them is blurred by a Gaussian, and spread to
voxels by trilinear weights, which add to 1 at every voxel.
Axes: c maps, b bands, z y x voxels, u v w regions, s shells.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch.nn import functional

BOX_PARTS = 16
"""A region is this part of the box's side, a band as many shells."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Bands × regions of cubic maps of `box` voxels; one for each box and device."""

    box: int
    device: str = "cpu"

    @staticmethod
    @lru_cache(maxsize=4)
    def of(box: int, device: str = "cpu") -> "Cells":
        """Made once."""
        return Cells(box, device)

    def __len__(self) -> int:
        """How many bands there are."""
        return len(self._middles_b)

    @cached_property
    def _middles_b(self) -> torch.Tensor:
        """|k| where a band is 1; the last one reaches Nyquist, the corners beyond belong to it."""
        step = max(1.0, self.box / BOX_PARTS)
        return torch.arange(step / 2, self.box / 2 + step / 2, step, device=self.device)

    @cached_property
    def _place_zyx(self) -> torch.Tensor:
        """Where every sample of an `rfftn` lies among the bands: b + a fraction."""
        k = torch.fft.fftfreq(self.box, 1 / self.box, device=self.device)
        x = torch.arange(self.box // 2 + 1, device=self.device)
        radius_zyx = (k[:, None, None] ** 2 + k[:, None] ** 2 + x**2).sqrt()
        first, step = self._middles_b[0], self._middles_b[1] - self._middles_b[0]
        return ((radius_zyx - first) / step).clamp(0, len(self) - 1)

    def band(self, spectrum_czyx: torch.Tensor, b: int) -> torch.Tensor:
        """The maps (c, z, y, x) of one band of spectra, which `rfftn` gives."""
        share_zyx = torch.sin(torch.pi / 2 * (1 - (self._place_zyx - b).abs()).clamp(min=0)) ** 2
        return torch.fft.irfftn(spectrum_czyx * share_zyx, s=(self.box,) * 3, dim=(-3, -2, -1))

    def frequency(self, b: float | torch.Tensor, pixel_A: float) -> torch.Tensor:
        """1/Å at the middle of a band, or at a fraction between two."""
        step = self._middles_b[1] - self._middles_b[0]
        return (self._middles_b[0] + b * step) / (self.box * pixel_A)

    def measure(self, value_czyx: torch.Tensor, width: float) -> torch.Tensor:
        """Means over regions, (c, u, v, w), blurred by a Gaussian whose σ is `width` of the box's side."""
        regions = min(BOX_PARTS, self.box)
        return self.smooth(functional.adaptive_avg_pool3d(value_czyx, (regions, regions, regions)), width)

    def smooth(self, value_cuvw: torch.Tensor, width: float) -> torch.Tensor:
        """Regions blurred by a Gaussian whose σ is `width` of the box's side; a constant stays one."""
        return _blur(value_cuvw, width * value_cuvw.shape[-1])

    def spread(self, value_cuvw: torch.Tensor, box: int | None = None) -> torch.Tensor:
        """(c, z, y, x): values at the middles of regions, trilinear between them; on a grid of another box if asked."""
        size = (box or self.box,) * 3
        return functional.interpolate(value_cuvw[None], size=size, mode="trilinear", align_corners=False)[0]

    def resolved(self, fsc_buvw: torch.Tensor, threshold: float) -> torch.Tensor:
        """Of every region (u, v, w) the band, a fraction between two, at which the FSC first falls below a threshold.

        It counts as 1 at half a band below the first; where it never falls below, it is the last band.
        """
        high_buvw = torch.cat([torch.ones_like(fsc_buvw[:1]), fsc_buvw])
        fine_buvw = (high_buvw >= threshold).long().cumprod(0).bool()
        last_uvw = fine_buvw.sum(0) - 1
        next_uvw = (last_uvw + 1).clamp(max=len(self))
        here_uvw, there_uvw = (high_buvw.gather(0, index[None])[0] for index in (last_uvw, next_uvw))
        part_uvw = ((here_uvw - threshold) / (here_uvw - there_uvw).clamp(min=1e-6)).clamp(0, 1)
        part_uvw = torch.where(last_uvw == 0, part_uvw / 2 + 0.5, part_uvw)
        return (last_uvw - 1 + part_uvw).clamp(max=len(self) - 1)


def _blur(value_cuvw: torch.Tensor, sigma: float) -> torch.Tensor:
    """A Gaussian blur along every axis, its weights at the border those within."""
    u = torch.arange(value_cuvw.shape[-1], device=value_cuvw.device)
    weight_uv = torch.exp(-0.5 * ((u[:, None] - u) / sigma) ** 2)
    weight_uv /= weight_uv.sum(1, keepdim=True)
    for _ in range(3):
        value_cuvw = (value_cuvw @ weight_uv.T).movedim(-1, 1)
    return value_cuvw
