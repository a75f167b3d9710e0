"""The checks of `morphem validate`: name -> module with `TITLE`, `REFITS` (whether it takes fitting again), `LATENT`
(whether it has a meaning without one), and `check`.

A new check is a page beside these and a line in `CHECKS`; command, report and contract tests follow from it.
"""

import importlib
from types import ModuleType

CHECKS: dict[str, str] = {
    "signal": "morphem.evaluation.checks.signal",
    "ctf": "morphem.evaluation.checks.ctf",
    "heterogeneity": "morphem.evaluation.checks.heterogeneity",
    "dimensions": "morphem.evaluation.checks.dimensions",
    "halves": "morphem.evaluation.checks.halves",
    "seeds": "morphem.evaluation.checks.seeds",
    "leakage": "morphem.evaluation.checks.leakage",
    "collapse": "morphem.evaluation.checks.collapse",
    "maps": "morphem.evaluation.checks.maps",
    "drift": "morphem.evaluation.checks.drift",
    "junk": "morphem.evaluation.checks.junk",
    "null": "morphem.evaluation.checks.null",
    "power": "morphem.evaluation.checks.power",
}
DECISIVE = ("signal", "ctf", "heterogeneity", "halves", "null")
"""One of these that fails, or leaves doubt, does so for the whole."""


def load(name: str) -> ModuleType:
    """The page of a check."""
    return importlib.import_module(CHECKS[name])
