"""Automatic: the fast methods compete for images that none has seen, and the one that predicts them best is fitted.

Every method is fitted to most of the images, choosing its own number of classes and dimensions. Then held-out images
say which ensemble they are likeliest under: half of an image's samples tell its state, the other half is predicted, and
the other way round (docs/notes/validation.md). The winner is fitted to all images. Of methods that differ by less than
twice the standard error, the one that is named first wins.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from morphem import methods
from morphem.data.dataset import Dataset
from morphem.ensemble import Ensemble, begin
from morphem.evaluation import Auto
from morphem.evaluation.refits import Fit, dimensions_of, subset
from morphem.evaluation.scores import Seen, gain_of_states, predictive
from morphem.evaluation.validation import mean_and_error, some
from morphem.inference import heldout
from morphem.run import Run

FOLDER = "candidates"
MOST_HELD_OUT = 2000


@dataclass(frozen=True, eq=False)
class Candidate:
    """One method's ensemble, and what held-out images say of it, in nats."""

    name: str
    ensemble: Ensemble
    score_n: np.ndarray
    gain_n: np.ndarray

    @property
    def shows_more_than_one_map(self) -> bool:
        mean, error = mean_and_error(self.gain_n)
        return self.ensemble.latent_dim > 0 and mean > 2 * error

    @property
    def size(self) -> dict[str, int]:
        """Settings that it chose by itself."""
        classes = self.ensemble.weight_nc.shape[1]
        chosen = {"classes": classes, "latent_dim": dimensions_of(self.ensemble)}
        wanted = {"variability": ("latent_dim",), "classify": ("classes",), "mixture": ("classes", "latent_dim")}
        return {key: chosen[key] for key in wanted.get(self.name, ())}


def fit(dataset: Dataset, config: Auto, run: Run) -> Ensemble:
    """The winner's ensemble; its `candidates/` hold the others', its history what was compared."""
    begin(run, dataset, "auto", config)
    rows = some(np.arange(len(dataset)), config.images, run.seed)
    fitted_n, judge_n = heldout.split(rows, config.held_out, run.seed, MOST_HELD_OUT)
    some_images = subset(dataset, fitted_n, run.folder / FOLDER / "images.star")
    ensembles = {name: _competing(name, some_images, config, run) for name in config.methods}
    candidates = list(_judged(ensembles, dataset, fitted_n, judge_n))
    best = candidates[0]
    for candidate in candidates[1:]:
        best = candidate if _better(candidate, best) else best
    name = best.name if best.shows_more_than_one_map else "backproject"
    settings = dataclasses.replace(config.of(name), **(best.size if name == best.name else {}))
    ensemble = methods.fit(name, dataset, settings, run)
    _say(run, candidates, best, name)
    return ensemble


def _competing(name: str, images: Dataset, config: Auto, run: Run) -> Ensemble:
    return methods.fit(name, images, config.of(name), dataclasses.replace(run, folder=run.folder / FOLDER / name))


def _judged(
    ensembles: dict[str, Ensemble], dataset: Dataset, fitted_n: np.ndarray, judge_n: np.ndarray
) -> Iterator[Candidate]:
    """Every ensemble under the same images, whitened alike: by what the first one's mean map leaves."""
    whitened, dataset = None, dataclasses.replace(dataset, device="cpu")
    for name, ensemble in ensembles.items():
        fit = Fit(ensemble.volume, ensemble.z_nq, fitted_n, dataset)
        whitened = whitened or fit.dataset
        seen = Seen.of(fit.states, whitened, judge_n)
        yield Candidate(name, ensemble, predictive(seen, fit.states), gain_of_states(seen, fit.states))


def _better(one: Candidate, other: Candidate) -> bool:
    """Beyond twice the standard error of the images' differences."""
    mean, error = mean_and_error(one.score_n - other.score_n)
    return mean > 2 * error


def _say(run: Run, candidates: list[Candidate], best: Candidate, name: str) -> None:
    for one in candidates:
        mean, error = mean_and_error(one.score_n - best.score_n)
        size = ", ".join(f"{key} {value}" for key, value in one.size.items())
        told = f"{mean:+.3f} ± {error:.3f} nats a held-out image against {best.name}"
        run.log(f"{one.name} ({size or 'default settings'}): {told}")
        compared = {"against": best.name, "gain": round(mean, 5), "error": round(error, 5)}
        run.record(part="auto", method=one.name, **one.size, **compared)
    if name == "backproject":
        run.notice("No heterogeneity is shown: held-out images are as likely under one map")
    else:
        run.log(f"{name} goes on: held-out images are likeliest under it, or none is better beyond doubt")
