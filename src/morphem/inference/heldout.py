"""Images that training does not see: does the model still get better on them?

Axes: n images, b images of a batch.
"""

import numpy as np
import torch

from morphem.data.dataset import Dataset, Observed
from morphem.inference.esteps import EStep
from morphem.inference.gradient import images_at_once
from morphem.models.image_model import ImageModel
from morphem.models.volume import Volume
from morphem.run import Run

MOST = 1000
STEPS = 10
"""In which a table finds z of an image anew after each epoch, from where it was."""


def split(rows_n: np.ndarray, share: float, seed: int, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """(rows to train on, rows held out), each ascending."""
    count = min(most, round(share * len(rows_n)))
    held_n = np.sort(np.random.default_rng([seed, 0]).permutation(rows_n)[:count])
    return np.setdiff1d(rows_n, held_n), held_n


def loss(dataset: Dataset, held_n: np.ndarray, estep: EStep, volume: Volume) -> dict[str, float]:
    """Mean |X̃ − X̂|² over the samples of the held-out images at the mean of z, as a record; nothing without them.

    A few images at a time, so that activations are those of a tile.
    """
    if not len(held_n):
        return {}
    estep.eval()
    volume.eval()
    batches = dataset.batches(images_at_once(len(dataset.lattice)), held_n)
    loss_n = np.concatenate([_loss(observed, estep, volume) for observed in batches])
    return {"held_out": round(float(loss_n.mean()), 6)}


def _loss(observed: Observed, estep: EStep, volume: Volume) -> np.ndarray:
    model = ImageModel()
    estep.locate(observed, volume, model, STEPS)
    with torch.no_grad():
        found = estep(observed, volume, model)
        misfit_b = -model.log_likelihood(volume, observed, found.rotation_bh33, found.shift_bh2, found.z_bhq)[:, 0]
    return (misfit_b / len(observed.lattice)).cpu().numpy()


def judge(run: Run, part: str) -> None:
    """Say whether training has converged."""
    losses = [line["held_out"] for line in run.history() if line.get("part", "") == part and "held_out" in line]
    if len(losses) > 1:
        at_rest, verdict = converged(losses)
        (run.log if at_rest else run.notice)(f"{part}: {verdict}" if part else verdict)


def converged(losses: list[float]) -> tuple[bool, str]:
    """Whether the last epoch brought less than a hundredth of what all have brought, and was no worse than another."""
    gained, last, lost = losses[0] - losses[-1], losses[-2] - losses[-1], losses[-1] - min(losses)
    numbers = f"held-out loss {losses[0]:.4f} after the first epoch, {losses[-2]:.4f}, {losses[-1]:.4f} after the last"
    if gained <= 0:
        return False, f"Not converged: nothing has been learnt that held-out images share ({numbers})"
    if lost > 0.05 * gained:
        return False, f"Not converged, but past the best: held-out images have fitted better before ({numbers})"
    if last > 0.01 * gained:
        return (
            False,
            f"Not converged: held-out images fit better with every epoch ({numbers}); --resume with more --epochs",
        )
    return True, f"Converged: {numbers}"
