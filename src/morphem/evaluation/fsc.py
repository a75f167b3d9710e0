"""The FSC that CryoBench scores maps against the truth with, and the area under it.

Shell i = 1 … D/2 − 1 holds i − 1 ≤ |k| < i, lies at x = i/D, and F(0) = 1; the area of identical maps is (D/2 − 1)/D.
Resolutions use other shells: `morphem.physics.fsc`. Axes: z y x maps, s shells.
Source: M. Jeon et al., CryoBench, NeurIPS Datasets and Benchmarks (2024), and its public code.
"""

import numpy as np
from scipy.integrate import trapezoid

from morphem.physics.fsc import shell_correlation


def benchmark_fsc(map_zyx: np.ndarray, true_zyx: np.ndarray) -> np.ndarray:
    """F of shells 0 … D/2 − 1. 0/0 = 0, where the public code has 1 and would score an empty map highest."""
    fsc_s = shell_correlation(map_zyx, true_zyx, 1.0)
    fsc_s[0] = 1
    return fsc_s


def auc(fsc_s: np.ndarray, clip: bool = False) -> float:
    """∫|F| dx by trapezoids over x = s/D; `clip` counts negative values as 0, as the published tables do."""
    height_s = np.clip(fsc_s, 0, 1) if clip else np.abs(fsc_s)
    return float(trapezoid(height_s, dx=1 / (2 * len(fsc_s))))
