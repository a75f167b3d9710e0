"""Which of a run's two decoders its images find likelier near a few states.

Axes: n images, q latent, h half-sets, z y x maps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.inference.clusters import cluster, count_distinct
from morphem.inference.esteps import Known
from morphem.inference.filtering import MOST_AXES as MOST_FILTERED
from morphem.inference.filtering import filtered as filter_locally
from morphem.inference.filtering import half_maps
from morphem.inference.kernel import Kernel, State
from morphem.inference.latents import Placed
from morphem.inference.neighbours import Neighbours
from morphem.io.mrc import read_map
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume, Volume
from morphem.physics.local import Cells
from morphem.run import Run

STATES = 6
LEAST_WEIGHT = 0.1
"""Images with less at the narrowest bandwidth are not asked."""


MOST_AXES = 24
"""Of a linear volume that is made anew of either half: sums grow as their square."""


@dataclass(frozen=True)
class Verdict:
    """The decoder taken, and why."""

    name: str
    gain: float | None = None
    """Nats per image by which the kernel's maps are likelier than the model's; None where it was not measured."""
    error: float | None = None
    """Its standard error, over states and half-sets."""
    images: int = 0
    """How many images were asked."""
    reason: str = ""

    def record(self, folder: Path) -> None:
        """A line of the run's history."""
        Run(folder).record(part="analysis", decoder=self.name, kernel_gain=self.gain, error=self.error)

    @property
    def sentence(self) -> str:
        """For the report."""
        if self.gain is None:
            return f"Maps are the {self.name}'s: {self.reason}."
        more = "more" if self.gain > 0 else "less"
        return (
            f"Maps are the {self.name}'s: {self.images:,} images near a few states find the kernel's maps"
            f" {abs(self.gain):.2f} ± {self.error:.2f} nats an image {more} likely than the model's."
        )


def better_decoder(ensemble: Ensemble, wanted: str = "auto", seed: int = 0) -> Verdict:
    """The decoder whose maps have the higher mean log-likelihood under images near the centres of a few clusters.

    The kernel's map is made of one half-set alone, filtered by the local FSC of half maps, and the other half's images
    judge it; then the other way round. So is a linear model's: its maps are made anew of one half at the run's latents,
    and filtered as the run's are.
    A network, or one of very many axes, cannot be: its map has seen the judges and may have learnt their noise, so that
    where the kernel wins it is better, and where the network wins narrowly it may not be. Each image counts with its
    weight w = N(z*; z_i, Σ_i + h²M⁻¹), so that a vague latent counts little. What this assumes: poses, latents and
    noise are equally good for both. Bandwidths and FSC of the kernel have seen the judges.
    """
    if wanted != "auto":
        return Verdict(wanted, reason="it was asked for")
    try:
        kernel = ensemble.kernel
    except InputError as error:
        return Verdict("model", reason=f"the kernel cannot decode this run ({error})")
    centre_k = cluster(ensemble.z_nq, min(STATES, count_distinct(ensemble.z_nq)), seed).centre_k
    gains, weights, asked = _gains(ensemble, kernel, ensemble.z_nq[centre_k])
    gain = float(np.average(gains, weights=weights))
    error = float(np.sqrt(np.average((gains - gain) ** 2, weights=weights) / len(gains)))
    return Verdict("kernel" if gain > 0 else "model", gain, error, asked)


def _gains(ensemble: Ensemble, kernel: Kernel, z_mq: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Of every state and direction: the gain an image, the sum of weights; and how many images were asked."""
    gains, weights, asked = [], [], 0
    models = _of_halves(ensemble, kernel)
    near_m = [kernel.latents.near(z_q) for z_q in z_mq]
    for z_q, near, state in zip(z_mq, near_m, kernel.states(z_mq), strict=True):
        for own, (kernel_zyx, model) in enumerate(zip(filtered(state), models, strict=True), start=1):
            row_n, weight_n = judges(near, kernel.half_n != own)
            model_zyx = _decoded(model, z_q)
            kernel_n, model_n = (log_likelihood(kernel, map_zyx, row_n) for map_zyx in (kernel_zyx, model_zyx))
            gains.append(np.average(kernel_n - model_n, weights=weight_n))
            weights.append(weight_n.sum())
            asked += len(row_n)
    return np.array(gains), np.array(weights), asked


def _of_halves(ensemble: Ensemble, kernel: Kernel) -> list[Volume]:
    """The run's volume as either half-set alone makes it, locally filtered, if it can be made anew."""
    volume = ensemble.volume
    if not isinstance(volume, LinearVolume) or volume.latent_dim > MOST_AXES:
        return [volume, volume]
    placed = Placed(ensemble.z_nq, ensemble.uncertainty_nqq).to(kernel.dataset.device)
    rows = [np.flatnonzero(kernel.half_n == half) for half in (1, 2)]
    names = [ensemble.folder / "maps" / f"consensus_half{half}_unfil.mrc" for half in (1, 2)]
    fine_hzyx = np.stack([read_map(name)[0] for name in names])
    half_hczyx = half_maps(volume, kernel.dataset, placed, rows, fine_hzyx)
    maps = list(half_hczyx)
    if volume.latent_dim <= MOST_FILTERED:
        maps = [filter_locally(own_czyx, half_hczyx, lambda fsc_uvw: fsc_uvw) for own_czyx in half_hczyx]
    return [LinearVolume.of(map_czyx, volume.radius, volume.padding) for map_czyx in maps]


@torch.inference_mode()
def _decoded(volume: Volume, z_q: np.ndarray) -> np.ndarray:
    return volume.maps(torch.from_numpy(z_q[None]).to(volume.mask_zyx.device))[0].cpu().numpy()


def judges(near: Neighbours, of_half_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one half-set near a state, and their weights at the narrowest bandwidth; its nearest where none is."""
    weight_n = near.weight_lr[0, near.ring_n] * of_half_n
    row_n = np.flatnonzero(weight_n >= LEAST_WEIGHT * weight_n.max())
    return row_n, np.maximum(weight_n[row_n], 1e-30)


def filtered(state: State) -> np.ndarray:
    """Half maps times their local FSC, Σ_b F_b β_b V: what each would be as the decoded map of its own images."""
    cells, half = Cells.of(state.half_hzyx.shape[-1]), torch.from_numpy(state.half_hzyx)
    spectrum_hzyx, filtered_hzyx = torch.fft.rfftn(half, dim=(-3, -2, -1)), torch.zeros_like(half)
    for b, fsc_uvw in enumerate(torch.from_numpy(state.fsc_buvw)):
        filtered_hzyx += cells.spread(fsc_uvw[None])[0] * cells.band(spectrum_hzyx, b)
    return filtered_hzyx.numpy()


@torch.inference_mode()
def log_likelihood(kernel: Kernel, map_zyx: np.ndarray, row_n: np.ndarray) -> np.ndarray:
    """log p(image | map) of some rows, up to a constant."""
    dataset, model = kernel.dataset, ImageModel()
    volume = LinearVolume.of(torch.from_numpy(map_zyx)[None], dataset.lattice.radius).to(dataset.device)
    found = []
    for observed in dataset.batches(500, row_n):
        known = Known()(observed, volume, model)
        log_bh = model.log_likelihood(volume, observed, known.rotation_bh33, known.shift_bh2, known.z_bhq)
        found.append(log_bh[:, 0].double().cpu().numpy())
    return np.concatenate(found)
