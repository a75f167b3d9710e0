"""Do states explain what errors of imaging do not? The one question that decides.

A rigid molecule with errors of pose, shift, contrast and defocus also differs from image to image, and z learns that.
So both are given to images that the fit has not seen, the errors with the widths that make them likeliest:

    gain = log p(y₂ | y₁, states and errors) − log p(y₂ | y₁, errors alone), both ways, in nats an image

y₁ and y₂ are halves of an image's samples.
"""

import numpy as np

from morphem.evaluation.imaging import ERRORS, FIRST_WIDTHS
from morphem.evaluation.scores import Seen, fitted_widths, gain_of_features
from morphem.evaluation.validation import Check, Found, Subject, mean_and_error

TITLE = "The states are no errors of imaging"
REFITS = True
CLEAR = 0.1
"""Nats an image that a believable gain exceeds."""


def check(subject: Subject) -> Check:
    if not subject.ensemble.latent_dim:
        return Check("fails", "The method found no heterogeneity: it keeps one map and no latent.")
    both, alone, widths = (list(part) for part in zip(*(gains(seen) for _, _, seen in subject.unseen), strict=True))
    added, error = mean_and_error(np.concatenate(both) - np.concatenate(alone))
    bars = {"states, beyond errors of imaging": added, "errors of imaging": float(np.concatenate(alone).mean())}
    found = Found.mean(added, error, "nats an image", {"kind": "bars", "of": bars, "x_title": "Gain (nats an image)"})
    return _verdict(added, error, told(np.mean(widths, 0), subject), found)


def _verdict(added: float, error: float, errors: str, found: Found) -> Check:
    if added - 2 * error > CLEAR:
        return Check("holds", "Images that no fit has seen show the states, beyond what errors of imaging do.", found)
    if added > 2 * error:
        return Check("doubtful", f"States add hardly anything to what errors of imaging explain ({errors}).", found)
    return Check(
        "fails", f"No heterogeneity is shown: errors of imaging of one rigid map explain as much ({errors}).", found
    )


def gains(seen: Seen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gain (n) of states and errors, that of errors alone, and the widths of the latter."""
    one_j, free_j = np.ones(len(seen.components)), np.repeat([False, True], [len(seen.components), len(ERRORS)])
    width_e = fitted_widths(seen, seen.errors, FIRST_WIDTHS, free_j[len(one_j) :])
    which_j = np.concatenate([seen.components, seen.errors])
    width_j = fitted_widths(seen, which_j, np.concatenate([one_j, width_e]), free_j)
    return gain_of_features(seen, which_j, width_j), gain_of_features(seen, seen.errors, width_e), width_e


def told(width_e: np.ndarray, subject: Subject) -> str:
    """The widths of errors in words."""
    turn_deg = np.degrees(np.sqrt((width_e[:3] ** 2).sum()))
    shift_A = width_e[3:5].mean() * subject.images.pixel_A
    return f"rotations off by {turn_deg:.1f}°, shifts by {shift_A:.1f} Å, contrast by {100 * width_e[5]:.0f} %"
