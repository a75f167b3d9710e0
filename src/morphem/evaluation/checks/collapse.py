"""Does z say anything, and do the maps that it decodes to differ by more than their errors?

A component is active where its places from either half of an image's samples agree, 2r/(1 + r) > 0.3 with r their
correlation. The states differ by Σ_k |A_k − Ā|², the halves' maps of them by Σ_k |(A_k − Ā) − (B_k − B̄)|²/2.
"""

import numpy as np

from morphem.evaluation.checks.halves import spread
from morphem.evaluation.validation import Check, Found, Subject

TITLE = "The latent has not collapsed"
REFITS = True
LATENT = True
RELIABLE = 0.3


def check(subject: Subject) -> Check:
    """Fails where no component is active; doubtful where states differ by less than their error."""
    one, _, seen = subject.unseen[0]
    reliability_j = reliabilities(seen.placed(one.states, (0,)), seen.placed(one.states, (1,)))
    active = int((reliability_j > RELIABLE).sum())
    power_j = one.states.power_j
    rank = float(power_j.sum() ** 2 / (power_j**2).sum())
    ratio = _signal_to_error(subject)
    bars = {f"component {j}": float(value) for j, value in enumerate(reliability_j[:12], start=1)}
    plot = {"kind": "bars", "of": bars, "level": RELIABLE, "x_title": "Reliability of places"}
    found = Found(active, unit=f"active of {one.states.components} components", plot=plot)
    told = f"maps vary in {rank:.1f} directions and differ by {ratio:.1f} times their error"
    if active and ratio > 1:
        return Check("holds", f"Images place themselves reliably along {active} components; {told}.", found)
    if active:
        return Check("doubtful", f"Images place themselves reliably, but {told}.", found)
    return Check("fails", "Two halves of one image's samples place it in different states: z says nothing.", found)


def reliabilities(one_nj: np.ndarray, other_nj: np.ndarray) -> np.ndarray:
    """2r/(1 + r) of every component."""
    one_nj, other_nj = (value_nj[:, 1:] - value_nj[:, 1:].mean(0) for value_nj in (one_nj, other_nj))
    power_j = np.sqrt((one_nj**2).sum(0) * (other_nj**2).sum(0))
    r_j = ((one_nj * other_nj).sum(0) / np.maximum(power_j, 1e-30)).clip(0)
    return 2 * r_j / (1 + r_j)


def _signal_to_error(subject: Subject) -> float:
    """√(what states differ by, over the error of a state's map), from two halves' maps of the same states."""
    one, other = state_maps(subject)
    error = 0.5 * ((one - other) ** 2).sum()
    return float(np.sqrt(max((one * other).sum(), 0) / max(error, 1e-30)))


def state_maps(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Both halves' maps of spread states about their mean, (k, v)."""
    near = spread(subject.ensemble.z_nq[subject.common], subject.run.seed)
    flat = []
    for fit, place_nj in zip(subject.fits, subject.places, strict=True):
        map_kv = fit.states.maps(np.stack([place_nj[rows].mean(0) for rows in near])).reshape(len(near), -1)
        flat.append(map_kv - map_kv.mean(0))
    return flat[0], flat[1]
