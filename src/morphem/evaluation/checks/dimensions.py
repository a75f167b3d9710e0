"""How many components of the states do unseen images support, and how much of what z shows is fitted noise?

The gain of the largest d components over none, d = 0, 1, …; the same of images that the fit has seen.
"""

import numpy as np

from morphem.evaluation.scores import gain_of_states
from morphem.evaluation.validation import Check, Found, Subject, mean_and_error, some

TITLE = "How many dimensions the images support"
REFITS = True
LATENT = True
MOST = 12
LEAST = 0.02
"""Nats an image that a component adds at least."""
OVERFIT = 0.5
"""Share of the seen images' gain that may be missing on unseen ones."""


def check(subject: Subject) -> Check:
    """Fails where no component adds; doubtful where half of the gain on seen images is lost on unseen ones."""
    most = min(MOST, *(fit.states.components for fit, _, _ in subject.unseen))
    if not most:
        return Check("fails", "Fitted to half of the images the method finds one map alone.")
    gain_dn = np.array([_gain(subject, count) for count in range(1, most + 1)])
    steps = [mean_and_error(gain_n) for gain_n in np.diff(gain_dn, axis=0, prepend=0)]
    fewest, supported, largest = (_supported(steps, errors) for errors in (4, 2, 0))
    seen_gain = np.mean(
        [gain_of_states(fit.seen(row_n), fit.states.first(most)).mean() for fit, row_n in _own(subject)]
    )
    lost = 1 - gain_dn[-1].mean() / max(seen_gain, 1e-9)
    plot = {
        "kind": "curve",
        "x": list(range(most + 1)),
        "y": [0.0, *gain_dn.mean(1).tolist()],
        "x_title": "Components of the states",
        "y_title": "Gain (nats an image)",
    }
    found = Found(supported, fewest, largest, f"of {most} components", plot)
    if not supported:
        return Check("fails", "Images that no fit has seen support no component.", found)
    noise = f"{100 * max(lost, 0):.0f} % of the gain on seen images is fitted noise"
    if lost > OVERFIT:
        return Check("doubtful", f"Unseen images support {supported} of {most} components, but {noise}.", found)
    return Check("holds", f"Unseen images support {supported} of {most} components; {noise}.", found)


def _supported(steps: list[tuple[float, float]], errors: float) -> int:
    """How many components add more than so many standard errors, one after another."""
    return next((d for d, (mean, error) in enumerate(steps) if mean <= max(errors * error, LEAST)), len(steps))


def _gain(subject: Subject, count: int) -> np.ndarray:
    return np.concatenate([gain_of_states(seen, fit.states.first(count)) for fit, _, seen in subject.unseen])


def _own(subject: Subject):
    return ((fit, some(fit.rows, 500, subject.run.seed)) for fit, _, _ in subject.unseen)
