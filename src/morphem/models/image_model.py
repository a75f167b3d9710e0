"""The only place where a volume becomes an image.

    X̂ = CTF/σ · exp(2πi k·t/D) · ratio² · V(Rᵀk · ratio, z)

Axes: b images, h hypotheses, k samples, r their real and imaginary parts by turns, q latent, c maps.
"""

from dataclasses import dataclass

import torch

from morphem.data.dataset import Observed
from morphem.models.volume import LinearVolume, Volume


@dataclass(frozen=True)
class ImageModel:
    """Slice, shift, CTF and whitening, as the observed batch says."""

    def predict(
        self,
        volume: Volume,
        observed: Observed,
        rotation_bh33: torch.Tensor,
        shift_bh2: torch.Tensor,
        z_bhq: torch.Tensor,
    ) -> torch.Tensor:
        """The whitened noise-free images under each hypothesis, complex64 (b, h, k)."""
        ratio_b1 = observed.ratio_b[:, None]
        slice_bhk = volume.slices(rotation_bh33 * ratio_b1[..., None, None], observed.lattice, z_bhq)
        phase_bhk = observed.lattice.shift_phase(shift_bh2)
        return slice_bhk * phase_bhk * (ratio_b1**2 * observed.ctf_bk)[:, None]

    def residual(
        self,
        volume: Volume,
        observed: Observed,
        rotation_bh33: torch.Tensor,
        shift_bh2: torch.Tensor,
        z_bhq: torch.Tensor,
    ) -> torch.Tensor:
        """X̃ − X̂, (b, h, k)."""
        return observed.sample_bk[:, None] - self.predict(volume, observed, rotation_bh33, shift_bh2, z_bhq)

    def log_likelihood(
        self,
        volume: Volume,
        observed: Observed,
        rotation_bh33: torch.Tensor,
        shift_bh2: torch.Tensor,
        z_bhq: torch.Tensor,
    ) -> torch.Tensor:
        """−Σ_k |X̃ − X̂|², (b, h); the weight 2 of a half plane cancels the Gaussian's ½."""
        residual_bhk = self.residual(volume, observed, rotation_bh33, shift_bh2, z_bhq)
        return -(residual_bhk.real**2 + residual_bhk.imag**2).sum(-1)

    def features(self, volume: LinearVolume, observed: Observed, maps: slice = slice(None)) -> torch.Tensor:
        """CTF/σ · ratio² · V_c(Rᵀk · ratio) of every map at the given poses, real (b, r, c), of centred images."""
        matrix_b33 = observed.rotation_b33 * observed.ratio_b[:, None, None]
        return volume.features(matrix_b33, observed.lattice, maps).mul_(self.transfer(observed)[..., None])

    def transfer(self, observed: Observed) -> torch.Tensor:
        """CTF/σ · ratio², real (b, r)."""
        return (observed.ratio_b[:, None] ** 2 * observed.ctf_bk).repeat_interleave(2, dim=1)

    def centred(self, observed: Observed) -> torch.Tensor:
        """The whitened samples of images shifted so that their particles lie at the centre, real (b, r)."""
        back_bk = observed.lattice.shift_phase(-observed.shift_b2)
        return torch.view_as_real(observed.sample_bk * back_bk).flatten(1)
