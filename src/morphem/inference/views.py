"""What an encoder sees of an image.

Axes: b images, k samples, s shells, v voxels, y x pixels.
"""

import torch
from torch import nn

from morphem.data.dataset import Observed
from morphem.inference.esteps import Hypotheses
from morphem.models.image_model import ImageModel
from morphem.models.nets import Convolutions
from morphem.models.volume import Volume
from morphem.physics.cube import half_ball, odd_channels
from morphem.physics.lattice import Lattice
from morphem.physics.slice import cube_shape, insert_each


class ImageView(nn.Module):
    """The image phase-flipped and centred, X̃ · sign(CTF) · exp(−2πi k·t/D), |k| ≤ radius: `inputs` numbers."""

    def __init__(self, lattice: Lattice, radius: float):
        super().__init__()
        self.samples = lattice.prefix(radius)
        self.inputs = 2 * self.samples

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> torch.Tensor:
        back_bk = observed.lattice.shift_phase(-observed.shift_b2)
        flipped_bk = observed.sample_bk * observed.ctf_bk.sign() * back_bk
        return torch.view_as_real(flipped_bk[:, : self.samples]).flatten(1)


class PictureView(nn.Module):
    """The same samples as a small picture of unit noise, through convolutions of stride 2: `inputs` numbers."""

    def __init__(self, lattice: Lattice, radius: float):
        super().__init__()
        radius = min(radius, lattice.radius)
        self.view = ImageView(lattice, radius)
        self.small = Lattice.disc(2 * int(radius) + 2, radius)
        self.convolutions = Convolutions()
        self.inputs = Convolutions.CHANNELS[-1]

    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> torch.Tensor:
        sample_bk2 = self.view(observed, volume, model).unflatten(1, (-1, 2))
        picture_byx = self.small.unpack(torch.view_as_complex(sample_bk2.contiguous()))
        return self.convolutions(picture_byx * (self.small.box**2 / (2 * len(self.small)) ** 0.5))


class MapView(nn.Module):
    """What the fixed map V₀ leaves of the image, back-projected into the map's frame at the known pose, |k| ≤ radius:

        Sᵀ[ g a · exp(−2πi k·t/D) · (X̃ − a exp(2πi k·t/D) S V₀) ],  a = CTF/σ

    with g(|k|) the amplitude of the map's shells. It is the gradient of the likelihood by the volume, scaled by how
    large a change is to be expected: for a linear subspace of volumes the posterior of z is linear in it, so that a
    network need not learn what a pose does to an image.
    """

    place_v: torch.Tensor
    amplitude_s: torch.Tensor
    scale: torch.Tensor

    def __init__(self, radius: float, amplitude_s: torch.Tensor):
        super().__init__()
        self.radius = radius
        depth, height, width, _ = cube_shape(radius, 2)
        x_v, y_v, z_v = half_ball(radius).unbind(1)
        self.register_buffer("place_v", ((z_v + depth // 2) * height + y_v + height // 2) * width + x_v)
        self.register_buffer("amplitude_s", amplitude_s.clone())
        self.register_buffer("scale", torch.ones(()))
        self.inputs = 2 * len(x_v)

    def calibrate(self, observed: Observed, volume: Volume, model: ImageModel) -> None:
        """Scale the inputs so that those of `observed` have variance 1 where they are not 0."""
        input_bc = self(observed, volume, model)
        self.scale = self.scale / input_bc[input_bc != 0].std()

    @torch.no_grad()
    def forward(self, observed: Observed, volume: Volume | None, model: ImageModel) -> torch.Tensor:
        near = observed.prefix(self.radius)
        residual_bk = near.sample_bk
        if volume is not None and volume.base is not None:
            known = Hypotheses.at_given_poses(near)
            poses = known.rotation_bh33, known.shift_bh2
            residual_bk = model.residual(volume.base, near, *poses, known.z_bhq)[:, 0]
        weight_bk = self.scale * near.ctf_bk * self.amplitude_s[torch.as_tensor(near.lattice.shell_k)]
        value_bk = residual_bk * weight_bk * near.lattice.shift_phase(-near.shift_b2)
        matrix_b33 = near.rotation_b33 * near.ratio_b[:, None, None]
        where = matrix_b33, near.lattice.coords_k2, odd_channels(1)
        cube_bvc = insert_each(torch.view_as_real(value_bk), *where, self.radius).flatten(1, 3)
        return cube_bvc[:, self.place_v].flatten(1)
