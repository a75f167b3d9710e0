"""Which images show none of the states? Never dropped in silence: a number for each, to select by.

    p(junk | y) = π / (π + (1 − π) p(y | states)/p(y | nothing)),   π their share, by expectation-maximisation

Beside it stand, as robust z-scores, what the mean map leaves of an image (misfit), how far its z lies out (remoteness)
and its contrast. Select them by `morphem export RUN --where "junk<0.5"`.
"""

import dataclasses

import numpy as np

from morphem.evaluation.validation import Check, Found, Subject, histogram

TITLE = "Images show the molecule"
REFITS = False
LATENT = False
FEW = 0.05
LEAST = 0.1
"""Nats an image that the mean map explains, where junk can be told at all."""
CHUNK = 2000
SWEEPS = 100


def check(subject: Subject) -> Check:
    """Doubtful where more than one in twenty images is junk."""
    chunks = np.array_split(np.arange(len(subject.ensemble)), 1 + len(subject.ensemble) // CHUNK)
    parts = [_of(subject, row_n) for row_n in chunks]
    shown_n, recognised_n, misfit_n, contrast_n = (np.concatenate(part) for part in zip(*parts, strict=True))
    if recognised_n.mean() < LEAST:
        return Check.untold(
            "Images do not even recognise the run's own mean map: there is nothing that junk would lack."
        )
    junk_n, share = probabilities(shown_n)
    of_images = {"junk": junk_n, "misfit": robust(misfit_n), "contrast": contrast_n}
    if subject.ensemble.latent_dim:
        of_images["remoteness"] = robust(remoteness(subject.ensemble.z_nq))
    error = float(np.sqrt(share * (1 - share) / len(junk_n)))
    plot = histogram(shown_n, "The states above nothing (nats)")
    found = Found(100 * share, 100 * max(share - 2 * error, 0), 100 * (share + 2 * error), "% of the images", plot)
    found = dataclasses.replace(found, of_images=of_images)
    if share < FEW:
        return Check("holds", "Nearly every image shows one of the states.", found)
    return Check("doubtful", f"About {100 * share:.0f} % of the images show none of the states: look at them.", found)


def _of(subject: Subject, row_n: np.ndarray) -> tuple[np.ndarray, ...]:
    seen = subject.whole.seen(row_n)
    data_n, gram_n = seen.data_hnj[..., 0].sum(0), seen.gram_hnjj[..., 0, 0].sum(0)
    return seen.shown(subject.whole.states), seen.recognised(), seen.excess_n, data_n / np.maximum(gram_n, 1e-30)


def probabilities(shown_n: np.ndarray) -> tuple[np.ndarray, float]:
    """p(junk) of every image, and their share."""
    odds_n, share = np.exp(-np.clip(shown_n, -50, 50)), 0.1
    for _ in range(SWEEPS):
        junk_n = share * odds_n / (share * odds_n + 1 - share)
        share = float(np.clip(junk_n.mean(), 1e-6, 1 - 1e-6))
    return junk_n, share


def robust(value_n: np.ndarray) -> np.ndarray:
    """About the median, in units of the deviation that the middle half has."""
    low, middle, high = np.percentile(value_n, [25, 50, 75])
    return (value_n - middle) / max((high - low) / 1.349, 1e-30)


def remoteness(z_nq: np.ndarray) -> np.ndarray:
    """Mahalanobis' distance of every z."""
    centred_nq = (z_nq - z_nq.mean(0)).astype(float)
    precision_qq = np.linalg.pinv(centred_nq.T @ centred_nq / len(z_nq))
    return np.sqrt(np.einsum("nq,qp,np->n", centred_nq, precision_qq, centred_nq).clip(0))
