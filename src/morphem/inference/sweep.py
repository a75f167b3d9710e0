"""The loop that every method runs: E-step, M-step, batch after batch.

Axes: n images, b images of a batch, q latent.
"""

from collections.abc import Callable

import numpy as np
import torch

from morphem.data.dataset import Dataset
from morphem.inference.esteps import EStep
from morphem.inference.msteps import MStep
from morphem.models.image_model import ImageModel
from morphem.models.volume import Volume
from morphem.run import progress


def sweep(
    dataset: Dataset,
    order: np.ndarray,
    size: int,
    estep: EStep,
    mstep: MStep,
    volume: Volume | None,
    model: ImageModel,
    text: str,
    done: int = 0,
    after: Callable[[int], None] = lambda batch: None,
) -> None:
    """One pass over the images in `order`, in batches of `size`, from the one after `done`; `after` is told each."""
    with progress(len(order), text) as bar:
        bar.start_at(done * size)
        for batch, observed in enumerate(dataset.batches(size, order[done * size :]), start=done + 1):
            mstep.update(observed, estep(observed, volume, model))
            bar.advance(len(observed))
            after(batch)
    mstep.finish()


def infer(
    dataset: Dataset, estep: EStep, volume: Volume, model: ImageModel, size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Every image's latent mean (n, q) and covariance (n, q, q), in row order."""
    means, covariances = [], []
    estep.eval()
    with torch.inference_mode():
        for observed in dataset.batches(size):
            hypotheses = estep(observed, volume, model)
            means.append(hypotheses.z_bhq[:, 0].cpu().numpy())
            covariances.append(hypotheses.z_cov_bhqq[:, 0].cpu().numpy())
    return np.concatenate(means), np.concatenate(covariances)
