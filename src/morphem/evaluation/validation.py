"""`morphem validate`: should a run be believed? Checks that need no truth, each a page in `checks`, and one verdict.

Axes: n images, e errors of imaging.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pandas as pd

from morphem.data.dataset import Dataset
from morphem.ensemble import Ensemble
from morphem.evaluation import Validation
from morphem.evaluation.refits import Fit, of_run, refitted
from morphem.evaluation.scores import Seen
from morphem.io.files import replacing
from morphem.run import Compute, Run

Verdict = Literal["holds", "doubtful", "fails", "cannot tell"]
WORST: tuple[Verdict, ...] = ("fails", "cannot tell", "doubtful", "holds")
ASKED = 1000
"""Images of either half that are asked, at most."""
FOLDER = "validation"
OTHER_START = 101
"""Added to the seed of a fit that is to share nothing with another, random starts included."""


@dataclass(frozen=True)
class Found:
    """What a check measured."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    """An interval of about 95 %, or the least and the largest of several."""
    unit: str = ""
    plot: dict[str, Any] = field(default_factory=dict)
    """What to draw: `kind` bars (`of`: name -> number), curve (`x`, `y`) or curves (`x`, `of`), and titles of axes."""
    of_images: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    """A number for every image."""

    @classmethod
    def mean(cls, mean: float, error: float, unit: str, plot: dict[str, Any] | None = None) -> "Found":
        """A mean and twice its standard error."""
        return cls(mean, mean - 2 * error, mean + 2 * error, unit, plot or {})


@dataclass(frozen=True)
class Check:
    """What one check says, in a sentence for a biologist."""

    verdict: Verdict
    sentence: str
    found: Found = Found()

    @classmethod
    def untold(cls, reason: str) -> "Check":
        return cls("cannot tell", reason)

    def told(self) -> dict[str, Any]:
        """As plain values; what it says of every image is left out."""
        numbers = {name: getattr(self.found, name) for name in ("value", "low", "high")}
        plain = {name: None if value is None else float(value) for name, value in numbers.items()}
        told = {"verdict": self.verdict, "sentence": self.sentence, **plain}
        return told | {"unit": self.found.unit, "plot": self.found.plot}


@dataclass(frozen=True, eq=False)
class Subject:
    """A run under examination, and what the checks share."""

    ensemble: Ensemble
    run: Run
    settings: Validation

    @cached_property
    def images(self) -> Dataset:
        """All images at the run's poses; they are asked on the CPU, whatever fits them again."""
        return replace(self.ensemble.refined_dataset(), device="cpu")

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the two half-sets."""
        return np.flatnonzero(self.ensemble.half_n == 1), np.flatnonzero(self.ensemble.half_n == 2)

    @cached_property
    def whole(self) -> Fit:
        """The run itself."""
        return Fit(self.ensemble.volume, self.ensemble.z_nq, np.arange(len(self.ensemble)), self.images)

    @cached_property
    def fits(self) -> tuple[Fit, Fit]:
        """The method fitted to either half alone."""
        one, other = of_run(self.ensemble, self.images, self.halves) or (
            self.again(f"half{number}", rows, OTHER_START * (number - 1)) for number, rows in enumerate(self.halves, 1)
        )
        return one, other

    def again(self, name: str, rows: np.ndarray, seed: int = 0, images: Dataset | None = None) -> Fit:
        """The method fitted again to some of the rows."""
        rows = some(rows, self.settings.images, self.run.seed)
        compute = replace(self.run.compute, seed=self.run.seed + seed)
        self.run.log(f"Fitting {len(rows):,} images again ({name})")
        return refitted(self.ensemble, images or self.images, rows, self.run.folder / name, compute)

    @cached_property
    def unseen(self) -> list[tuple[Fit, np.ndarray, Seen]]:
        """Either half's fit, with images of the other half."""
        rows = [some(rows, ASKED, self.run.seed) for rows in reversed(self.halves)]
        return [(fit, row_n, fit.seen(row_n)) for fit, row_n in zip(self.fits, rows, strict=True)]

    @cached_property
    def common(self) -> np.ndarray:
        """Rows of both halves, which both fits place."""
        return np.sort(np.concatenate([some(rows, ASKED, self.run.seed) for rows in self.halves]))

    @cached_property
    def seen_by_both(self) -> tuple[Seen, Seen]:
        """These with the states of either half's fit."""
        one, other = self.fits
        return one.seen(self.common), other.seen(self.common)

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """φ (n, j) of these in either half's fit."""
        (one, other), (seen, by_other) = self.fits, self.seen_by_both
        return seen.placed(one.states), by_other.placed(other.states)


def some(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most so many of the rows, ascending."""
    return np.sort(np.random.default_rng([seed, 7]).permutation(rows)[:count])


def mean_and_error(value_n: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(value_n.mean()), float(value_n.std(ddof=1) / np.sqrt(len(value_n)))


def explained(left_n: np.ndarray, total_n: np.ndarray) -> tuple[float, float]:
    """R² = 1 − Σ left/Σ total of squared deviations (n), and its standard error, that of a ratio of means."""
    share = left_n.sum() / max(total_n.sum(), 1e-30)
    error = (left_n - share * total_n).std() / np.sqrt(len(left_n)) / max(total_n.mean(), 1e-30)
    return float(1 - share), float(error)


def histogram(value_n: np.ndarray, x_title: str) -> dict[str, Any]:
    """How many images have which value, as a plot; one in a hundred at either end is left out."""
    counts, edges = np.histogram(value_n, 20, tuple(np.percentile(value_n, [1, 99])))
    middles = (0.5 * (edges[1:] + edges[:-1])).tolist()
    return {"kind": "curve", "x": middles, "y": counts.tolist(), "x_title": x_title, "y_title": "Images"}


def validate(ensemble: Ensemble, settings: Validation, compute: Compute) -> dict[str, Any]:
    """Make the checks and write RUN/validation/; what validation.json says. Checks made earlier stay if not repeated.

    validation.json holds the verdict and the checks, particles.parquet a row for every image, half1/ and half2/ the
    method fitted to half-sets. Errors: InputError where the images are not there any more.
    """
    from morphem.evaluation.checks import CHECKS, load

    run = Run(ensemble.folder / FOLDER, compute)
    subject, found, before = Subject(ensemble, run, settings), {}, _before(run)
    for name in settings.checks or CHECKS:
        page = load(name)
        if page.REFITS and not settings.refit and name in before:
            continue
        found[name] = _asked(page, subject)
        run.log(f"{page.TITLE}: {found[name].verdict}")
    checks = before | {name: {"name": name, "title": load(name).TITLE, **one.told()} for name, one in found.items()}
    checks = {name: checks[name] for name in CHECKS if name in checks}
    verdict, sentence = whole_verdict({name: Check(one["verdict"], one["sentence"]) for name, one in checks.items()})
    told = {"verdict": verdict, "sentence": sentence, "checks": list(checks.values())}
    with replacing(run.folder / "validation.json") as path:
        path.write_text(json.dumps(told, indent=1))
    _write_images(run, found, len(ensemble))
    return told


def _asked(page: ModuleType, subject: Subject) -> Check:
    """What a page finds, where it may be asked."""
    if page.LATENT and not subject.ensemble.latent_dim:
        return Check.untold("There is no latent.")
    return page.check(subject) if subject.settings.refit or not page.REFITS else Check.untold(UNTOLD)


def _before(run: Run) -> dict[str, dict[str, Any]]:
    """What was found earlier, check by check; what was not asked then is left out."""
    path = run.folder / "validation.json"
    checks = json.loads(path.read_text())["checks"] if path.is_file() else []
    return {check["name"]: check for check in checks if check["sentence"] != UNTOLD}


UNTOLD = "Not asked: it takes fitting again, which --no-refit forbids."


def whole_verdict(found: dict[str, Check]) -> tuple[Verdict, str]:
    """The worst of what decides, and its sentence; another check that fails leaves doubt."""
    from morphem.evaluation.checks import DECISIVE

    missing = [name for name in DECISIVE if name not in found]
    said = [found[name] for name in DECISIVE if name in found and not (name == "ctf" and _untold(found[name]))]
    worst = min(said, key=_badness, default=Check("holds", ""))
    if worst.verdict != "holds":
        return worst.verdict, worst.sentence
    if missing:
        return "cannot tell", f"Not all of the checks that decide were made ({', '.join(missing)})."
    if failed := [check for check in found.values() if check.verdict == "fails"]:
        return "doubtful", failed[0].sentence
    return "holds", "The differences between the states are real: images that no fit has seen show them."


def _untold(check: Check) -> bool:
    return check.verdict == "cannot tell" and check.sentence != UNTOLD


def _badness(check: Check) -> int:
    return WORST.index(check.verdict)


def _write_images(run: Run, found: dict[str, Check], images: int) -> None:
    """particles.parquet: index and what the checks say of every image."""
    columns = {name: value_n for check in found.values() for name, value_n in check.found.of_images.items()}
    if not columns:
        return
    table = run.folder / "particles.parquet"
    known = pd.read_parquet(table) if table.is_file() else pd.DataFrame({"index": np.arange(images)})
    with replacing(table) as path:
        known.assign(**columns).to_parquet(path)
