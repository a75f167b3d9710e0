"""Whether particles are white or dark, seen in the images themselves.

Axes: b images, n images looked at, d box side.
"""

import numpy as np

from morphem.data.images import Images
from morphem.physics.noise import radii

CERTAIN = 4.0
"""Below this many standard errors nothing is said."""


def brightness(image_bdd: np.ndarray) -> np.ndarray:
    """Mean of the pixels with r < 0.4 minus that of those with r > 0.85, (b,) float64: above 0 for white particles."""
    r_dd = radii(image_bdd.shape[-1]).numpy()
    centre_b, rim_b = (image_bdd[:, where].mean(1, dtype=np.float64) for where in (r_dd < 0.4, r_dd > 0.85))
    return centre_b - rim_b


def certainty(brightness_n: np.ndarray) -> float:
    """Mean over its standard error: the sign says white (+) or dark (−); 0 for fewer than five images."""
    if len(brightness_n) < 5:
        return 0.0
    error = brightness_n.std(ddof=1) / len(brightness_n) ** 0.5
    return float(brightness_n.mean() / error) if error > 0 else 0.0


def seen(t: float) -> str:
    """`white`, `dark` or `cannot tell`."""
    return "cannot tell" if abs(t) < CERTAIN else "white" if t > 0 else "dark"


def complaint(t: float, contrast: str, has_ctf: bool) -> str | None:
    """What is wrong where stored particles of certainty `t` are read with `contrast`; None where nothing is.

    The CTF is negative at low frequency, so density has its sign when white particles are multiplied by −1 and dark
    ones are not; without a CTF it is the other way round.
    """
    expected = "white" if (contrast == "white") == has_ctf else "dark"
    if seen(t) in (expected, "cannot tell"):
        return None
    option = "dark" if contrast == "white" else "white"
    found = f"particles are {seen(t)} in their stacks (by {abs(t):.0f} standard errors)"
    return f"{found}, expected {expected} ones, so the map would come out inverted; give --contrast {option}"


def contrast_warning(images: Images, sample: int = 1000) -> str | None:
    """One sentence where the images, by up to `sample` of them, have the wrong sign for their contrast option."""
    rows = np.unique(np.linspace(0, len(images) - 1, sample).round().astype(int))
    brightness_n = np.concatenate([brightness(images.read(rows_b)) for rows_b in np.array_split(rows, 10)])
    t = certainty(brightness_n if images.contrast == "dark" else -brightness_n)
    said = complaint(t, images.contrast, images.particles.ctf is not None)
    return said and f"{images.particles.path}: {said}"
