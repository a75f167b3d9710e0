"""Errors of imaging: what a rigid molecule shows when its pose, contrast or defocus is not what the table says.

    X̂(w) = X̂ + Σ_e w_e ∂X̂/∂w_e,   w = (ω_x, ω_y, ω_z, t_x, t_y, log c, Δ),   w_e ~ N(0, σ_e²)

This is what heterogeneity has to beat: a latent can learn any of them (docs/notes/validation.md).
Axes: b images, k samples, r their real and imaginary parts by turns, e errors.
"""

import dataclasses

import numpy as np
import torch

from morphem.data.dataset import Dataset, Observed
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.physics import rotations

ERRORS = ("rotation_x", "rotation_y", "rotation_z", "shift_x", "shift_y", "contrast", "defocus")
FIRST_WIDTHS = np.array([0.05, 0.05, 0.05, 0.5, 0.5, 0.1, 1000.0])
"""Standard deviations in radians, pixels, 1 and Å, that fitting starts from."""
TURN_RAD, DEFOCUS_A = 0.03, 300.0
"""Steps of differences."""


def of_errors(still: LinearVolume, dataset: Dataset, observed: Observed, mean_br: torch.Tensor) -> torch.Tensor:
    """∂X̂/∂w of the images of one map, (b, r, e), at the centre; `mean_br` are the images themselves."""
    model = ImageModel()

    def changed(**values: torch.Tensor) -> torch.Tensor:
        return model.features(still, dataclasses.replace(observed, **values))[..., 0]

    turn_a33 = [torch.from_numpy(rotations.about(step * TURN_RAD * np.eye(3))).float() for step in (1, -1)]
    turned_bra = [
        torch.stack(
            [changed(rotation_b33=turn_33.to(observed.rotation_b33) @ observed.rotation_b33) for turn_33 in turns], -1
        )
        for turns in turn_a33
    ]
    defocused_br = [
        changed(ctf_bk=dataset.transfer(observed.index_b, step * DEFOCUS_A).to(observed.ctf_bk)) for step in (1, -1)
    ]
    turn_bra = (turned_bra[0] - turned_bra[1]) / (2 * TURN_RAD)
    defocus_br = (defocused_br[0] - defocused_br[1]) / (2 * DEFOCUS_A)
    return torch.cat([turn_bra, _shifted(observed, mean_br), torch.stack([mean_br, defocus_br], -1)], -1)


def _shifted(observed: Observed, mean_br: torch.Tensor) -> torch.Tensor:
    """(2πi k/D) X̂, (b, r, 2)."""
    turned_bkr = mean_br.unflatten(1, (-1, 2)).flip(-1) * torch.tensor([-1.0, 1.0]).to(mean_br)
    phase_k2 = 2 * torch.pi / observed.lattice.box * observed.lattice.coords_k2.to(mean_br)
    return torch.einsum("bkr,ka->bkra", turned_bkr, phase_k2).flatten(1, 2)
