"""Does z know what it should not: the view, the shift, the defocus, the contrast, the micrograph, the optics group?

    R² of z predicted, in five folds, from each of these by its 50 nearest neighbours or by ridge regression, or from
    the mean z of other images of the same micrograph or group, and
    Δ(z → it) = (2/N) mean rank in it of the nearest neighbours in z: 1 without information, near 0 with all of it

The contrast is measured on samples that do not place the image. Source: A. Glielmo et al., PNAS Nexus 1, pgac039
(2022).
Axes: n images, q latent, f features.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from morphem.data.particles import Particles
from morphem.evaluation.checks.junk import probabilities
from morphem.evaluation.latents import information_imbalance
from morphem.evaluation.validation import Check, Found, Subject, explained, some

TITLE = "The latent knows nothing of the imaging"
REFITS = False
LATENT = True
ASKED = 2000
FEW, MUCH = 0.1, 0.3
"""R²: less is nothing, more is a leak."""
NEIGHBOURS = 50


def check(subject: Subject) -> Check:
    """Holds below R² = 0.1 of the worst, or what permuted rows give; doubtful below 0.3."""
    row_n = some(np.arange(len(subject.ensemble)), ASKED, subject.run.seed)
    z_nq, rng = whitened(subject.ensemble.z_nq[row_n]), np.random.default_rng(subject.run.seed)
    known = dict(of_table(subject.images.particles.take(row_n)))
    told = {name: predicted(value_nf, z_nq) for name, value_nf in known.items()} | {
        "contrast": _contrast(subject, row_n)
    }
    r2 = {name: value for name, (value, _) in told.items()}
    chance = max(predicted(rng.permutation(value_nf), z_nq)[0] for value_nf in known.values())
    numbers = {name: value_nf for name, value_nf in known.items() if name in ("view", "shift", "defocus")}
    imbalance = {name: information_imbalance(z_nq, value_nf) for name, value_nf in numbers.items()}
    worst = max(r2, key=lambda name: r2[name])
    plot = {"kind": "bars", "of": r2, "level": FEW, "x_title": "R² of z predicted", "imbalance": imbalance}
    found = Found.mean(*told[worst], f"R² of z from the {worst}", plot)
    share = f"{100 * max(r2[worst], 0):.0f} % of a direction of z is predicted by the {worst}"
    if r2[worst] < max(FEW, chance):
        return Check("holds", f"z tells nothing of {_listed(r2)}.", found)
    if r2[worst] < MUCH:
        return Check("doubtful", f"{share}: look whether states differ in it.", found)
    return Check("fails", f"{share}: states may be differences of imaging, not of the molecule.", found)


def _listed(names: dict[str, float]) -> str:
    *some, last = names
    return f"{', '.join(some)} or {last}" if some else last


def of_table(particles: Particles) -> Iterator[tuple[str, np.ndarray]]:
    """What the table says of each image, as columns (n, f)."""
    yield "view", particles.rotation_n33.reshape(len(particles), 9)
    yield "shift", particles.shift_A_n2
    if particles.ctf is not None:
        yield "defocus", (particles.ctf.defocus_u_A_n + particles.ctf.defocus_v_A_n)[:, None]
    if particles.optics_n.max() > 0:
        yield "optics group", particles.optics_n
    if particles.micrograph_n is not None and len(set(particles.micrograph_n)) < len(particles) / 2:
        yield "micrograph", pd.factorize(particles.micrograph_n)[0]


def predicted(value_nf: np.ndarray, z_nq: np.ndarray) -> tuple[float, float]:
    """The larger R² of two regressions along what they tell best of z, and its error; of names (n) by their means."""
    if value_nf.ndim == 1:
        return _by_means(value_nf, z_nq)
    folds = KFold(5, shuffle=True, random_state=0)
    nearest = KNeighborsRegressor(n_neighbors=min(NEIGHBOURS, len(z_nq) // 5))
    models = (make_pipeline(StandardScaler(), model) for model in (nearest, Ridge()))
    told = (np.asarray(cross_val_predict(model, value_nf, z_nq, cv=folds)).reshape(z_nq.shape) for model in models)
    return max(_along_best(z_nq, told_nq) for told_nq in told)


def _along_best(z_nq: np.ndarray, told_nq: np.ndarray) -> tuple[float, float]:
    """R², and its error, along the direction of z in which what is told varies most."""
    centred_nq = told_nq - told_nq.mean(0)
    best_q = np.linalg.eigh(centred_nq.T @ centred_nq)[1][:, -1]
    return explained(((z_nq - told_nq) @ best_q) ** 2, ((z_nq - z_nq.mean(0)) @ best_q) ** 2)


def whitened(z_nq: np.ndarray) -> np.ndarray:
    """z in uncorrelated coordinates of variance 1; those with less than a hundredth of the variance are left out."""
    left_nq, size_q, _ = np.linalg.svd((z_nq - z_nq.mean(0)).astype(float), full_matrices=False)
    return left_nq[:, size_q**2 > 0.01 * max((size_q**2).sum(), 1e-30)] * np.sqrt(len(z_nq))


def _by_means(group_n: np.ndarray, z_nq: np.ndarray) -> tuple[float, float]:
    """Every image's z from the mean of the others of its group, drawn to 0 as if one more image lay there."""
    centred_nq, groups = z_nq - z_nq.mean(0), int(group_n.max()) + 1
    total_gq = np.stack([np.bincount(group_n, z_n, groups) for z_n in centred_nq.T], 1)
    others_n1 = np.bincount(group_n, minlength=groups)[group_n, None]
    return _along_best(z_nq, z_nq.mean(0) + (total_gq[group_n] - centred_nq) / others_n1)


def _contrast(subject: Subject, row_n: np.ndarray) -> tuple[float, float]:
    """From the contrast that one half of the samples shows, the place that the other half gives; junk is left out."""
    fit = subject.whole
    seen = fit.seen(row_n)
    shown_n = probabilities(seen.shown(fit.states))[0] < 0.5
    contrast_n = seen.data_hnj[1, :, 0] / np.maximum(seen.gram_hnjj[1, :, 0, 0], 1e-30)
    place_nj = whitened(seen.placed(fit.states, (0,))[:, 1:] * np.sqrt(fit.states.power_j))
    if shown_n.sum() < 2 * NEIGHBOURS:
        return 0.0, 0.0
    return predicted(np.clip(contrast_n, -3, 5)[shown_n, None], place_nj[shown_n])
