"""Does the same fit with other seeds keep particles in their places?

R² = Σ_j λ_j R_j² / Σ_j λ_j: how well a linear map of one fit's places gives the other's, components weighted by power
"""

import itertools

import numpy as np

from morphem.evaluation.validation import ASKED, Check, Found, Subject, explained, some

TITLE = "Other seeds find the same"
REFITS = True
LATENT = True
SAME, ALIKE = 0.7, 0.4
"""R² of fits that are the same, and that are alike."""


def check(subject: Subject) -> Check:
    """Holds above R² = 0.7 of the worst pair, doubtful above 0.4."""
    first, rows = subject.fits[0], subject.halves[0]
    others = [subject.again(f"seed{seed}", first.rows, seed) for seed in range(1, subject.settings.seeds)]
    asked = some(rows, ASKED, subject.run.seed)
    places = [(fit.seen(asked).placed(fit.states)[:, 1:], fit.states.power_j) for fit in (first, *others)]
    pairs = list(itertools.combinations(range(len(places)), 2))
    told = {f"{i + 1} and {j + 1}": agreement(*places[i], *places[j]) for i, j in pairs}
    worst, error = min(told.values())
    bars = {name: value for name, (value, _) in told.items()}
    plot = {"kind": "bars", "of": bars, "level": SAME, "x_title": "R² between two fits"}
    found = Found.mean(worst, error, f"R² of the worst pair of {len(places)} seeds", plot)
    if worst > SAME:
        return Check("holds", "Fits with other random seeds put particles into the same places.", found)
    if worst > ALIKE:
        return Check("doubtful", "Fits with other random seeds put particles into other places in part.", found)
    return Check("fails", "Fits with other random seeds put particles into different places.", found)


def agreement(one_nj: np.ndarray, one_j: np.ndarray, other_nj: np.ndarray, other_j: np.ndarray) -> tuple[float, float]:
    """The smaller R² of both ways, and its standard error."""
    return min(foretold(one_nj, other_nj, other_j), foretold(other_nj, one_nj, one_j))


def foretold(from_nj: np.ndarray, to_nj: np.ndarray, power_j: np.ndarray) -> tuple[float, float]:
    """R² of the second half's places, predicted by least squares on the first half, and its standard error."""
    if not from_nj.shape[1] or not to_nj.shape[1]:
        return 0.0, 0.0
    middle = len(from_nj) // 2
    design_nj = np.column_stack([np.ones(len(from_nj)), from_nj])
    slope_jj = np.linalg.lstsq(design_nj[:middle], to_nj[:middle], rcond=None)[0]
    left_nj, total_nj = to_nj[middle:] - design_nj[middle:] @ slope_jj, to_nj[middle:] - to_nj[middle:].mean(0)
    return explained(left_nj**2 @ power_j, total_nj**2 @ power_j)
