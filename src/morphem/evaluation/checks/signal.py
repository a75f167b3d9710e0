"""Do images recognise a map that others have made? Noise, a wrong box or wrong poses do not.

log p(y | mean map of the other half) − log p(y | nothing), in nats an image
"""

import numpy as np

from morphem.evaluation.validation import Check, Found, Subject, histogram, mean_and_error

TITLE = "A molecule is there"
REFITS = True
LATENT = False


def check(subject: Subject) -> Check:
    """Holds above 0.1 nats an image and five standard errors; doubtful above 0.02 and two."""
    recognised_n = np.concatenate([seen.recognised() for _, _, seen in subject.unseen])
    mean, error = mean_and_error(recognised_n)
    found = Found.mean(mean, error, "nats an image", histogram(recognised_n, "The map above nothing (nats)"))
    if mean > 5 * error and mean > 0.1:
        return Check("holds", "Images recognise the map that the other half of them has made.", found)
    if mean > 2 * error and mean > 0.02:
        return Check("doubtful", "Images hardly recognise the map that the other half of them has made.", found)
    return Check("fails", "Images do not recognise the map that the other half has made: there is only noise.", found)
