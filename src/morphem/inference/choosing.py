"""How many classes and dimensions the images support: by the likelihood of images that no fit has seen.

More of either always fits the seen images better. Candidates grow step by step, each is compared with the best one so
far image by image, and growth ends where the gain could be chance, or is what a sweep more would give.

Axes: n held-out images.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from morphem.inference.expectation import RISE, Model, evidence
from morphem.inference.marching import COARSE, March

DIMENSIONS = (2, 4, 6, 8, 10, 12, 16, 20)
CLASSES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
BOTH = (2, 4, 6)
"""Dimensions that classes are tried with."""
DOUBT = 0.005
"""The chance that one candidate more is taken though it is no better."""
PATIENCE = 2
"""How many candidates in a row may fail to gain."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A fitted model and log p of every held-out image under it."""

    model: Model
    evidence_n: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(classes, dimensions)."""
        return self.model.classes, self.model.estep.latent_dim

    def gain(self, other: "Candidate") -> tuple[float, float]:
        """Mean of this one's evidence above another's, and its standard error, in nats an image."""
        difference_n = self.evidence_n - other.evidence_n
        return float(difference_n.mean()), float(difference_n.std(ddof=1) / np.sqrt(len(difference_n)))

    def gains_on(self, other: "Candidate") -> bool:
        """Whether it is better beyond doubt (Student's t, one-sided) and by more than sweeps leave undone."""
        (mean, error), images = self.gain(other), len(self.evidence_n)
        return images > 1 and mean > max(error * float(stdtrit(images - 1, 1 - DOUBT)), RISE)


def judged(march: March, model: Model) -> Candidate:
    """A model climbed to the coarse radius, and what held-out images say of it."""
    model = march.climb(model, COARSE)
    return Candidate(model, evidence(march.held_out.within(model.volume.radius), model))


def grown(march: March, start: Candidate, sizes: Iterable[int], fit: Callable[[int], Model]) -> Candidate:
    """The best of candidates of growing size; each comparison goes to the log and the history."""
    best, failed = start, 0
    for size in sizes:
        candidate = judged(march, fit(size))
        mean, error = candidate.gain(best)
        _say(march, candidate, best, mean, error)
        best, failed = (candidate, 0) if candidate.gains_on(best) else (best, failed + 1)
        if failed == PATIENCE:
            break
    return best


def _say(march: March, candidate: Candidate, best: Candidate, mean: float, error: float) -> None:
    (classes, dimensions), (then_classes, then_dimensions) = candidate.size, best.size
    march.run.log(
        f"{classes} classes × {dimensions} dimensions against {then_classes} × {then_dimensions}: "
        f"{mean:+.4f} ± {error:.4f} nats a held-out image"
    )
    march.run.record(part="choice", size=candidate.size, against=best.size, gain=round(mean, 5), error=round(error, 5))


def dimensions(march: March) -> Model:
    """(1, q): q from 0 up."""
    return grown(march, judged(march, march.subspace(0)), DIMENSIONS, march.subspace).model


def classes(march: March, wide: Model, latent_dim: int = 0) -> Model:
    """(K, q) of given q: K from 1 up."""
    return grown(
        march, judged(march, march.subspace(latent_dim)), CLASSES, lambda count: march.mixture(wide, count, latent_dim)
    ).model


def dimensions_of_classes(march: March, wide: Model, count: int) -> Model:
    """(K, q) of given K: q from 0 up."""
    still = judged(march, march.mixture(wide, count, 0))
    return grown(march, still, BOTH, lambda size: march.mixture(wide, count, size)).model


def both(march: March) -> Model:
    """(K, q): the best q of one class, the best K of none, then that K with dimensions, whichever gains."""
    march, wide = march.wide()
    moving = judged(march, dimensions(march))
    still = judged(march, classes(march, wide))
    best = still if still.gains_on(moving) else moving
    count = still.size[0]
    if count == 1:
        return best.model
    return grown(march, best, BOTH, lambda size: march.mixture(wide, count, size)).model
