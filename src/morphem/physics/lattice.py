"""Which Fourier samples exist: a half disc ordered by |k|, so that a lower resolution is a prefix.

Axes: b images, d box side, k samples. F(k) = Σₓ f(x) exp(−2πi k·x/D), x counted from pixel D/2 on every axis.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Lattice:
    """The samples (kx, ky) with kx > 0, or kx = 0 and ky > 0, and |k| ≤ radius, sorted by (|k|², kx, ky)."""

    box: int
    radius: float
    k_k2: np.ndarray
    """(k, 2) integers (kx, ky)."""

    @classmethod
    def disc(cls, box: int, radius: float | None = None) -> "Lattice":
        """The half disc for images of `box` pixels; the radius is clamped to box/2 − 1: no DC, no Nyquist."""
        largest = box // 2 - 1
        radius = largest if radius is None else min(radius, largest)
        ky, kx = np.mgrid[-largest : largest + 1, 0 : largest + 1]
        kx, ky = kx.ravel(), ky.ravel()
        keep = ((kx > 0) | (ky > 0)) & (kx**2 + ky**2 <= radius**2)
        kx, ky = kx[keep], ky[keep]
        order = np.lexsort((ky, kx, kx**2 + ky**2))
        return cls(box, radius, np.stack([kx[order], ky[order]], axis=1))

    def __len__(self) -> int:
        return len(self.k_k2)

    def prefix(self, radius: float) -> int:
        """How many samples lie within `radius`: they are the first ones of every packed array."""
        return int(np.searchsorted(self._k2_k, radius**2, side="right"))

    def within(self, radius: float) -> "Lattice":
        """The lattice cut at a smaller radius, a prefix of this one; made once."""
        if radius >= self.radius:
            return self
        if radius not in self._prefixes:
            self._prefixes[radius] = Lattice(self.box, radius, self.k_k2[: self.prefix(radius)])
        return self._prefixes[radius]

    def every_other(self, first: int) -> "Lattice":
        """Half of the samples, evenly of every shell: those from the `first`, 0 or 1."""
        return Lattice(self.box, self.radius, self.k_k2[first::2])

    def on(self, box: int) -> "Lattice":
        """The same samples of images with fewer pixels and the same side in Å."""
        return Lattice(box, self.radius, self.k_k2)

    @cached_property
    def _prefixes(self) -> dict[float, "Lattice"]:
        return {}

    @cached_property
    def _k2_k(self) -> np.ndarray:
        return (self.k_k2**2).sum(1)

    @cached_property
    def shell_k(self) -> np.ndarray:
        """round|k|, the shell of every sample: s − ½ ≤ |k| < s + ½."""
        return np.floor(np.sqrt(self._k2_k) + 0.5).astype(np.int64)

    @cached_property
    def coords_k2(self) -> torch.Tensor:
        """The samples as float32, what slices are read at."""
        return torch.as_tensor(self.k_k2, dtype=torch.float32)

    @cached_property
    def _place_k(self) -> torch.Tensor:
        """Position of every sample in a flattened `rfft2`."""
        kx, ky = self.k_k2[:, 0], self.k_k2[:, 1]
        return torch.as_tensor((ky % self.box) * (self.box // 2 + 1) + kx)

    @cached_property
    def _sign_k(self) -> torch.Tensor:
        """(−1)^(kx+ky) moves the origin from the corner to pixel D/2."""
        return torch.as_tensor(1 - 2 * (self.k_k2.sum(1) % 2), dtype=torch.float32)

    def pack(self, image_bdd: torch.Tensor) -> torch.Tensor:
        """Real images to their samples, complex64 (b, k), unscaled."""
        spectrum_bf = torch.fft.rfft2(image_bdd).flatten(-2)
        return spectrum_bf[..., self._place_k.to(image_bdd.device)] * self._sign_k.to(image_bdd.device)

    def unpack(self, sample_bk: torch.Tensor) -> torch.Tensor:
        """The real images (b, d, d) whose transform is `sample_bk` on the lattice and zero elsewhere."""
        half = self.box // 2 + 1
        flat_bf = sample_bk.new_zeros(*sample_bk.shape[:-1], self.box * half)
        flat_bf[..., self._place_k.to(sample_bk.device)] = sample_bk * self._sign_k.to(sample_bk.device)
        spectrum_bdh = flat_bf.unflatten(-1, (self.box, half)).clone()
        below = torch.arange(1, self.box // 2, device=sample_bk.device)
        spectrum_bdh[..., self.box - below, 0] = spectrum_bdh[..., below, 0].conj()
        return torch.fft.irfft2(spectrum_bdh, s=(self.box, self.box))

    def shift_phase(self, shift_b2: torch.Tensor) -> torch.Tensor:
        """exp(+2πi k·t/D), (b, k): what a particle whose centre lies at D/2 − t is multiplied by; t in pixels."""
        coords_k2 = self.coords_k2.to(shift_b2.device)
        turn_bk = (2 * torch.pi / self.box) * (shift_b2.float() @ coords_k2.T)
        return torch.polar(torch.ones_like(turn_bk), turn_bk)
