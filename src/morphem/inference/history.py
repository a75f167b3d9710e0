"""What an epoch leaves in the history beside its loss.

Axes: n images, q latent, g optics groups, s shells, k samples.
"""

import numpy as np
import psutil
import torch

from morphem.data.dataset import Dataset
from morphem.inference.gradient import Gradient
from morphem.inference.latents import Encoder

ACTIVE = 0.01
"""A dimension of z is used where the variance of its mean over the images is larger."""


def mean(value_gs: torch.Tensor, dataset: Dataset, radius: float) -> float:
    """The mean of a quantity per group and shell over all samples within `radius` of all images."""
    images_g = torch.bincount(torch.as_tensor(dataset.particles.optics_n), minlength=len(value_gs))
    shell_k = dataset.lattice.within(radius).shell_k
    weight_gs = images_g[:, None] * torch.bincount(torch.as_tensor(shell_k), minlength=value_gs.shape[1])
    return float((value_gs * weight_gs).sum() / weight_gs.sum())


def of_latents(mstep: Gradient, row_n: np.ndarray) -> dict[str, object]:
    """How many dimensions of z are used; of an encoder also β, and KL = ½⟨μ² + s² − 1 − log s²⟩ of each marginal."""
    if not mstep.volume.latent_dim:
        return {}
    mean_nq, variance_nq = mstep.mean_nq.cpu()[row_n], mstep.variance_nq.cpu()[row_n]
    record: dict[str, object] = {"active": int((mean_nq.var(0) > ACTIVE).sum())}
    for encoder in (part for part in mstep.estep.modules() if isinstance(part, Encoder)):
        kl_q = 0.5 * (mean_nq**2 + variance_nq - 1 - variance_nq.log()).mean(0)
        record["kl"] = [round(value, 4) for value in kl_q.tolist()]
        record["beta"] = round(encoder.schedule.weight(encoder.epochs), 6)
    return record


def memory_GB() -> float:
    """What this process holds, and what a GPU holds for it."""
    on_gpu = torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0
    return (psutil.Process().memory_info().rss + on_gpu) / 1e9


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
