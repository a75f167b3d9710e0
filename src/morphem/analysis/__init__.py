"""From a run's ensemble to what a reader wants to see: maps, plots, one report."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from morphem.errors import InputError, RunError

if TYPE_CHECKING:
    from morphem.ensemble import Ensemble


@dataclass(frozen=True)
class Analysis:
    """What to make of a finished run."""

    clusters: int = 20
    """How many k-means clusters; a map is decoded at the image nearest to each centre."""
    axes: int = 2
    """How many principal components to follow."""
    frames: int = 10
    """How many maps along each of them, from the 5th to the 95th percentile of the images."""
    umap: Annotated[bool, Parameter(negative="--no-umap")] = True
    """Draw the latent with UMAP where it has three dimensions or more."""

    def __post_init__(self) -> None:
        if self.clusters < 1 or self.frames < 2 or self.axes < 0:
            found = f"--clusters {self.clusters} --frames {self.frames} --axes {self.axes}"
            raise InputError(f"{found}: expected at least 1 cluster, 2 frames and 0 axes")


def analyze(ensemble: "Ensemble", settings: Analysis | None = None, seed: int = 0) -> Path:
    """Write `analysis/` in the run's folder, whole or not at all, and return its report.html.

    Errors: InputError where there are more clusters than distinct latents.
    """
    from morphem.analysis.report import write_analysis

    with _replacing_folder(ensemble.folder / "analysis") as folder:
        write_analysis(folder, ensemble, settings or Analysis(), seed)
    return ensemble.folder / "analysis" / "report.html"


@contextlib.contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target; on success it takes the target's place, on failure it goes."""
    aside, former = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("part", "former"))
    try:
        aside.mkdir(parents=True)
        yield aside
        if folder.exists():
            folder.rename(former)
        aside.rename(folder)
    except OSError as error:
        raise RunError(f"{folder}: could not be written ({error.strerror or error}); free some space") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if former.exists() and not folder.exists():
            former.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
