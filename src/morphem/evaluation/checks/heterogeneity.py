"""Do states explain what errors of imaging do not? The one question that decides.

A rigid molecule with errors of pose, shift, contrast and defocus also differs from image to image, and z learns that.
So both are given to images that the fit has not seen, the errors with the widths that make them likeliest:

    gain = log p(y₂ | y₁, states and errors) − log p(y₂ | y₁, errors alone), both ways, in nats an image

y₁ and y₂ are halves of an image's samples.
"""

import numpy as np

from morphem import methods
from morphem.evaluation.imaging import FIRST_WIDTHS
from morphem.evaluation.scores import Amounts, Seen
from morphem.evaluation.validation import Check, Found, Subject, mean_and_error
from morphem.inference.settings import LinearSettings

TITLE = "The states are no errors of imaging"
REFITS = True
LATENT = False
CLEAR, IMPERFECT = 0.1, 0.004
"""A believable gain exceeds so many nats an image, and such a share of what the mean map explains: no model of imaging
is better."""


def check(subject: Subject) -> Check:
    """Holds where the gain less two standard errors is believable (`least`), doubtful where it exceeds two of them."""
    if not subject.ensemble.latent_dim:
        return _without_latent(subject)
    both, alone, widths = (list(part) for part in zip(*(gains(seen) for _, _, seen in subject.unseen), strict=True))
    added, error = mean_and_error(np.concatenate(both) - np.concatenate(alone))
    bars = {"states, beyond errors of imaging": added, "errors of imaging": float(np.concatenate(alone).mean())}
    found = Found.mean(added, error, "nats an image", {"kind": "bars", "of": bars, "x_title": "Gain (nats an image)"})
    clear = least(float(np.mean([seen.recognised().mean() for _, _, seen in subject.unseen])))
    return _verdict(added, error, clear, told(np.mean(widths, 0), subject), found)


def least(recognised: float) -> float:
    """The gain that is believable where the mean map explains so much."""
    return max(CLEAR, IMPERFECT * recognised)


def _verdict(added: float, error: float, clear: float, errors: str, found: Found) -> Check:
    if added - 2 * error > clear:
        return Check("holds", "Images that no fit has seen show the states, beyond what errors of imaging do.", found)
    if added > 2 * error:
        return Check("doubtful", f"States add hardly anything to what errors of imaging explain ({errors}).", found)
    return Check(
        "fails", f"No heterogeneity is shown: errors of imaging of one rigid map explain as much ({errors}).", found
    )


def _without_latent(subject: Subject) -> Check:
    """One map: by choice of the method, or because held-out images supported no more."""
    asked_for_one = subject.ensemble.config["settings"].get("classes") == 1
    if issubclass(methods.load(subject.ensemble.method).Config, LinearSettings) and not asked_for_one:
        return Check("fails", "The method found no heterogeneity: held-out images supported one map alone.")
    return Check.untold("The method fits one map; fit variability, mixture or vae to look for heterogeneity.")


def gains(seen: Seen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gain (n) of states and errors, that of errors alone, and the widths of the latter.

    In either, all images may share any amount of any component: that the fit's mean map is off is no heterogeneity.
    """
    which_j = np.concatenate([seen.components, seen.errors])
    of_errors_j = np.isin(which_j, seen.errors)
    first_j = np.concatenate([np.zeros(len(seen.components)), FIRST_WIDTHS])
    alone = Amounts.fitted(seen, which_j, first_j, of_errors_j)
    both = Amounts.fitted(seen, which_j, np.where(of_errors_j, alone.width_j, 1.0), of_errors_j)
    return both.gain(seen), alone.gain(seen), alone.width_j[of_errors_j]


def told(width_e: np.ndarray, subject: Subject) -> str:
    """The widths of errors in words."""
    turn_deg = np.degrees(np.sqrt((width_e[:3] ** 2).sum()))
    shift_A = width_e[3:5].mean() * subject.images.pixel_A
    return f"rotations off by {turn_deg:.1f}°, shifts by {shift_A:.1f} Å, contrast by {100 * width_e[5]:.0f} %"
