"""From a run's ensemble to what a reader wants to see: maps, plots, one report."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from morphem.errors import InputError
from morphem.io.files import replacing, replacing_folder

if TYPE_CHECKING:
    from morphem.ensemble import Ensemble


@dataclass(frozen=True)
class Analysis:
    """What to make of a finished run."""

    clusters: int = 20
    """How many clusters; a map is decoded at the image nearest to each centre."""
    cluster_by: Literal["kmeans", "gaussians", "density"] = "kmeans"
    """What makes clusters: k-means, a mixture of Gaussians, or peaks of density; the maps are in kmeans/ for all."""
    axes: int | None = None
    """How many principal components to follow; all by default."""
    frames: int = 10
    """How many maps along each of them, from the 5th to the 95th percentile of the images."""
    umap: Annotated[bool, Parameter(negative="--no-umap")] = True
    """Draw the latent with UMAP where it has three dimensions or more."""
    differences: Annotated[bool, Parameter(negative="")] = False
    """Also write every map minus the mean of its series, within the mask."""
    landscape: int = 0
    """Compare so many maps from all over the latent with each other, say 200; 0 for none."""
    landscape_states: int = 10
    """How many states those maps are joined to at most."""

    decoder: Literal["auto", "model", "kernel"] = "auto"
    """What turns z into maps: the run's model, local regression on the images, or what the images find likelier."""

    def __post_init__(self) -> None:
        if self.clusters < 1 or self.frames < 2 or (self.axes or 0) < 0:
            found = f"--clusters {self.clusters} --frames {self.frames} --axes {self.axes}"
            raise InputError(f"{found}: expected at least 1 cluster, 2 frames and 0 axes")
        if self.landscape < 0 or self.landscape == 1 or self.landscape_states < 1:
            found = f"--landscape {self.landscape} --landscape-states {self.landscape_states}"
            raise InputError(f"{found}: expected 0 or at least 2 maps, and at least 1 state")


def analyze(ensemble: "Ensemble", settings: Analysis | None = None, seed: int = 0) -> Path:
    """Write `analysis/` in the run's folder, whole or not at all, then report.html beside it; the report's path.

    Errors: InputError where there are more clusters than distinct latents, or the kernel is asked for in vain.
    """
    from morphem.analysis.report import write_analysis

    with replacing_folder(ensemble.folder / "analysis") as folder:
        write_analysis(folder, ensemble, settings or Analysis(), seed)
    return write_report(ensemble)


def write_report(ensemble: "Ensemble") -> Path:
    """Write report.html of a run that was analysed, with the verdicts that it has by now; its path.

    Errors: InputError where the run was not analysed.
    """
    from morphem.analysis.page import render

    report = ensemble.folder / "report.html"
    text = render(ensemble)
    with replacing(report) as page:
        page.write_text(text, encoding="utf-8")
    return report
