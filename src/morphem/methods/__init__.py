"""The methods: name -> module with `Config`, `REFERENCES` and `fit(dataset, config, run) -> Ensemble`.

A new method is a page beside these and a line in `METHODS`; commands, docs and the contract tests follow from it.
"""

import ast
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morphem.data.dataset import Dataset
    from morphem.ensemble import Ensemble
    from morphem.run import Run

METHODS: dict[str, str] = {
    "backproject": "morphem.methods.backproject",
    "field": "morphem.methods.field",
    "vae": "morphem.methods.vae",
    "autodecoder": "morphem.methods.autodecoder",
    "variability": "morphem.methods.variability",
    "classify": "morphem.methods.classify",
    "mixture": "morphem.methods.mixture",
    "abinitio": "morphem.methods.abinitio",
}


def load(name: str) -> ModuleType:
    """The module of a method."""
    return importlib.import_module(METHODS[name])


def finds_poses(name: str) -> bool:
    """Whether a method needs no poses."""
    return getattr(load(name), "FINDS_POSES", False)


def check(dataset: "Dataset", config: Any) -> None:
    """Refuse before anything is written what these images, these files and this machine cannot give.

    Errors: InputError.
    """
    from morphem.inference.memory import refuse_sums_that_do_not_fit, refuse_what_does_not_fit
    from morphem.inference.settings import LinearSettings, NetworkSettings
    from morphem.io.mrc import read_map_of
    from morphem.physics import masks

    if hasattr(config, "check"):
        config.check(dataset.particles)
    if mask := getattr(config, "mask", None):
        masks.read(mask, dataset.box, dataset.pixel_A)
    if isinstance(config, LinearSettings):
        for path in getattr(config, "init", ()):
            read_map_of(path, dataset.box, dataset.pixel_A)
        refuse_sums_that_do_not_fit(dataset, config)
    if isinstance(config, NetworkSettings):
        refuse_what_does_not_fit(dataset, config)


def fit(name: str, dataset: "Dataset", config: Any, run: "Run") -> "Ensemble":
    """Fit a method into a run's folder."""
    from morphem.data.contrast import contrast_warning
    from morphem.ensemble import begin

    check(dataset, config)
    begin(run, dataset, name, config)
    inverted = contrast_warning(dataset.images)
    for notice in (*dataset.particles.notices, *dataset.images.notices, *([inverted] if inverted else [])):
        run.notice(notice)
    return load(name).fit(dataset, config, run)


def summary(name: str) -> str:
    """The first sentence of a method's page, read without importing it."""
    spec = importlib.util.find_spec(METHODS[name])
    assert spec is not None and spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())
