"""E-steps over the latent z at known poses.

Axes: b images, k samples, q latent, h width.
"""

import torch
from torch import nn

from morphem.data.dataset import Observed
from morphem.inference.esteps import EStep, Hypotheses
from morphem.models.image_model import ImageModel
from morphem.models.nets import ResidualTrunk
from morphem.models.volume import Volume
from morphem.physics.lattice import Lattice


class Encoder(EStep):
    """q(z | X) = N(μ, diag s²) by a residual network; penalty β·KL, KL = ½Σ(μ² + s² − 1 − log s²).

    Its input is the whitened image, phase-flipped and centred: X̃ · sign(CTF) · exp(−2πi k·t/D), within `radius`. Where
    the volume adds to a fixed map, that map's image is subtracted first: it tells the pose, not the shape. β rises
    linearly from 0 over the first `warmup` images of training.
    """

    def __init__(
        self,
        lattice: Lattice,
        latent_dim: int,
        radius: float,
        width: int,
        layers: int,
        beta: float = 1.0,
        warmup: int = 0,
    ):
        super().__init__()
        self.samples, self.latent_dim, self.beta, self.warmup = lattice.prefix(radius), latent_dim, beta, warmup
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.inlet = nn.Linear(2 * self.samples, width)
        self.trunk = ResidualTrunk(width, layers, 2 * latent_dim)

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> Hypotheses:
        x_bh = self.inlet(torch.view_as_real(self._seen(observed, volume, model)).flatten(1)).relu_()
        mean_bq, log_variance_bq = self.trunk(x_bh.to(self.dtype)).chunk(2, dim=1)
        log_variance_bq = log_variance_bq.clamp(-20, 10)
        variance_bq = log_variance_bq.exp()
        kl_b = 0.5 * (mean_bq**2 + variance_bq - 1 - log_variance_bq).sum(1)
        if self.training:
            self.seen += len(observed)
        rise = min(1.0, int(self.seen) / self.warmup) if self.warmup else 1.0
        return Hypotheses.at_given_poses(observed, mean_bq, variance_bq, rise * self.beta * kl_b)

    @torch.no_grad()
    def _seen(self, observed: Observed, volume: Volume | None, model: ImageModel) -> torch.Tensor:
        """Phase-flipped and centred samples of the prefix, (b, k), less the fixed map's."""
        sample_bk = observed.sample_bk
        if volume is not None and volume.base is not None:
            known = Hypotheses.at_given_poses(observed, *[sample_bk.real[:, :0]] * 2)
            poses = known.rotation_bh33, known.shift_bh2
            sample_bk = model.residual(volume.base, observed, *poses, known.z_bhq)[:, 0]
        back_bk = observed.lattice.shift_phase(-observed.shift_b2)
        return (sample_bk * observed.ctf_bk.sign() * back_bk)[:, : self.samples]
