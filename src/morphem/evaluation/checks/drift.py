"""Had the fit come to rest? What its history says of held-out images, or of how much its last sweep changed.

Training loss is not asked: it follows neither the maps nor convergence.
"""

from typing import Any

from morphem.evaluation.validation import Check, Found, Subject
from morphem.inference.heldout import converged

TITLE = "The fit has come to rest"
REFITS = False
LATENT = False
AT_REST = 0.02
"""Of the maps' power that the last sweep may change."""


def check(subject: Subject) -> Check:
    """Doubtful where the fit still changed."""
    records = subject.ensemble.history
    losses = [line["held_out"] for line in records if "held_out" in line and "epoch" in line]
    if len(losses) > 1:
        return _of_network(records, losses)
    sweeps = [line for line in records if "change" in line]
    if not sweeps:
        return Check.untold("The run's history does not say.")
    last = sweeps[-1].get("part"), sweeps[-1]["radius"], sweeps[-1]["images"]
    changes = [line["change"] for line in sweeps if (line.get("part"), line["radius"], line["images"]) == last]
    titles = {"x_title": "Sweep at the largest radius", "y_title": "Share of the maps changed"}
    plot = {"kind": "curve", "x": list(range(1, len(changes) + 1)), "y": changes, **titles}
    found = Found(100 * changes[-1], unit="% changed by the last sweep", plot=plot)
    if changes[-1] < AT_REST:
        return Check("holds", "The last sweep hardly changed the maps.", found)
    return Check("doubtful", "The last sweep still changed the maps; give more --sweeps.", found)


def _of_network(records: list[dict[str, Any]], losses: list[float]) -> Check:
    at_rest, sentence = converged(losses)
    epochs = [line["epoch"] for line in records if "held_out" in line and "epoch" in line]
    plot = {"kind": "curve", "x": epochs, "y": losses, "x_title": "Epoch", "y_title": "Loss of held-out images"}
    best = epochs[losses.index(min(losses))]
    found = Found(best, unit=f"the best of {epochs[-1]} epochs", plot=plot)
    return Check("holds" if at_rest else "doubtful", f"{sentence}.", found)
