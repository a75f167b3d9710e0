"""Do images know their own CTF? Where the table's rows are mixed up, another image's would serve as well.

log p(y | mean map, its CTF) − log p(y | mean map, another image's CTF), in nats an image
"""

import dataclasses

import numpy as np

from morphem.evaluation.refits import Fit
from morphem.evaluation.scores import Seen
from morphem.evaluation.validation import Check, Found, Subject, histogram, mean_and_error

TITLE = "The CTFs belong to the images"
REFITS = True
LATENT = False
ALIKE_A = 10.0
"""Defoci that differ by less are one."""


def check(subject: Subject) -> Check:
    """Holds above four standard errors, doubtful above two."""
    if subject.images.particles.ctf is None:
        return Check.untold("The images have no CTF.")
    if np.ptp(subject.images.particles.ctf.defocus_u_A_n) < ALIKE_A:
        return Check.untold("All images have the same CTF.")
    gains = [seen.recognised() - _mixed(fit, row_n, subject.run.seed) for fit, row_n, seen in subject.unseen]
    gain_n = np.concatenate(gains)
    mean, error = mean_and_error(gain_n)
    found = Found.mean(mean, error, "nats an image", histogram(gain_n, "Its own CTF above another's (nats)"))
    if mean > 4 * error:
        return Check("holds", "Images fit the map better with their own CTF than with another image's.", found)
    if mean > 2 * error:
        return Check("doubtful", "Images hardly tell their own CTF from another image's.", found)
    return Check(
        "fails",
        "Images fit no better with their own CTF than with another image's: the table's CTFs are wrong, or there is "
        "only noise.",
        found,
    )


def _mixed(fit: Fit, row_n: np.ndarray, seed: int) -> np.ndarray:
    """How well images are recognised with CTFs of others."""
    particles = fit.dataset.particles
    assert particles.ctf is not None
    others = particles.ctf.take(np.random.default_rng(seed).permutation(len(particles)))
    dataset = dataclasses.replace(fit.dataset, particles=dataclasses.replace(particles, ctf=others))
    return Seen.of(fit.states, dataset, row_n).recognised()
