"""What would be seen if nothing moved? The method fitted to images that are simulated from its mean map alone.

The simulated images have the run's poses, CTFs and noise, and errors of pose, shift and contrast as wide as make the
real images likeliest without states. What the fit then claims beyond these errors is chance.
"""

import numpy as np

from morphem.evaluation.checks.heterogeneity import gains, least
from morphem.evaluation.refits import simulated
from morphem.evaluation.validation import OTHER_START, Check, Found, Subject, mean_and_error, some

TITLE = "Nothing of the kind is seen where nothing moves"
REFITS = True
LATENT = True


def check(subject: Subject) -> Check:
    """Holds where the real gain exceeds the simulated one beyond three standard errors, and twice."""
    fit, asked_n, seen = subject.unseen[0]
    both_n, alone_n, width_e = gains(seen)
    (observed, error), clear = mean_and_error(both_n - alone_n), least(float(seen.recognised().mean()))
    fitted_n = some(fit.rows, subject.settings.images, subject.run.seed)
    rows = np.union1d(fitted_n, asked_n)
    still_nj = np.eye(1, fit.states.phi_mj.shape[1]).repeat(len(rows), 0)
    images = simulated(fit, rows, still_nj, width_e, subject.run.seed)
    null = subject.again("null", np.searchsorted(rows, fitted_n), 2 * OTHER_START, images)
    null_both_n, null_alone_n, _ = gains(null.seen(np.searchsorted(rows, asked_n)))
    chance, chance_error = mean_and_error(null_both_n - null_alone_n)
    bars = {"if nothing moved": chance, "observed": observed}
    plot = {"kind": "bars", "of": bars, "x_title": "Gain (nats an image)"}
    found = Found.mean(chance, chance_error, "nats an image if nothing moved", plot)
    if observed - chance > 3 * np.hypot(error, chance_error) and observed > max(2 * chance, clear):
        return Check("holds", "A molecule that does not move would not have given such a result.", found)
    return Check("fails", "A molecule that does not move would have given a result like this.", found)
