"""Everything that `analysis/` holds: tables, maps, figures, and one page that shows them and needs nothing else.

Axes: n images, q latent, p principal components, k clusters, m maps of a series.
"""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.image import imsave

from morphem.analysis import Analysis, latent, plots
from morphem.analysis.decoders import better_decoder
from morphem.analysis.free_energy import write_densities
from morphem.analysis.landscape import write_landscape
from morphem.analysis.latent import Principal
from morphem.analysis.maps import Series, camera_of, write_series
from morphem.analysis.pictures import VIEWS, Camera
from morphem.ensemble import Ensemble
from morphem.inference.clusters import Clusters, cluster, count_distinct
from morphem.physics.fsc import HalfMapFsc, read_fsc_star
from morphem.run import NOTICE, say

PAGE_DPI = 110
"""Figures are shown at this many of the page's pixels per inch, so that all their letters have one size."""
UNPLOTTED = {"epoch", "seconds", "skipped", "images_per_s"}
"""Records of history.jsonl that say nothing about convergence."""


@dataclass
class Page:
    """What the report's template is filled with; figures are written as they are added."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Name -> data URI, width in the page's pixels."""

    def add(self, name: str, figure: Figure) -> None:
        """Write `name`.png and keep it for the page."""
        path = self.folder / f"{name}.png"
        plots.save(figure, path)
        self.figures[name] = data_uri(path.read_bytes()), round(PAGE_DPI * figure.get_figwidth())

    def write(self, report: Path) -> None:
        """The page, with all its figures inside."""
        loader = PackageLoader("morphem.analysis", ".")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=loader)
        text = environment.get_template("report.html.j2").render(figures=self.figures, **self.facts)
        report.write_text(text, encoding="utf-8")


def write_analysis(folder: Path, report: Path, ensemble: Ensemble, settings: Analysis, seed: int) -> None:
    """Fill an empty folder: the consensus and its FSC; with latents also tables, clusters and paths; then the page."""
    if settings.decoder == "kernel":
        _ = ensemble.kernel  # refuses a run that it cannot decode, before anything is drawn
    camera = camera_of(ensemble)
    page = Page(folder, _facts(ensemble))
    curves = _consensus(page, ensemble, camera)
    page.facts |= {"resolution": _resolution(curves), "history": _history(page, ensemble)}
    page.facts |= _latents(page, ensemble, settings, seed, camera) if ensemble.latent_dim else {"latent": None}
    page.write(report)
    if verdict := page.facts.get("verdict"):
        verdict.record(ensemble.folder)


def data_uri(png: bytes) -> str:
    """A picture as part of a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _facts(ensemble: Ensemble) -> dict[str, Any]:
    """What was run, with what, and what it warned of."""
    folder, config = ensemble.folder, ensemble.config
    log = (folder / "run.log").read_text().splitlines() if (folder / "run.log").is_file() else []
    citations = folder / "citations.bib"
    return {
        "run": folder.resolve().name,
        "config": config,
        "images": len(ensemble),
        "latent_dim": ensemble.latent_dim,
        "warnings": [line.partition(NOTICE)[2] for line in log if NOTICE in line],
        "citations": citations.read_text() if citations.is_file() else "",
    }


def _consensus(page: Page, ensemble: Ensemble, camera: Camera) -> HalfMapFsc | None:
    """Pictures of the consensus; its half maps' FSC where there is one."""
    pictures = {axis: camera.picture(ensemble.consensus_zyx, axis) for axis in VIEWS}
    page.add("consensus", plots.consensus(pictures, ensemble.pixel_A))
    path = ensemble.folder / "maps" / "consensus_fsc.star"
    if not path.is_file():
        return None
    curves = read_fsc_star(path)
    page.add("fsc", plots.fsc(curves))
    return curves


def _resolution(curves: HalfMapFsc | None) -> str:
    if curves is None:
        return "not measured"
    return f"{curves.resolution_A:.2f} Å" if curves.resolution_A else f"Nyquist ({2 * curves.pixel_A:.2f} Å)"


def _history(page: Page, ensemble: Ensemble) -> bool:
    """Plot every number that was recorded in at least two epochs; False where there is none."""
    records = [record for record in ensemble.history if isinstance(record.get("epoch"), (int, float))]
    numbers = [name for record in records for name, value in record.items() if type(value) in (int, float)]
    names = [name for name in dict.fromkeys(numbers) if name not in UNPLOTTED and numbers.count(name) > 1]
    if names:
        page.add("history", plots.history(records, names[:9]))
    return bool(names)


def _latents(page: Page, ensemble: Ensemble, settings: Analysis, seed: int, camera: Camera) -> dict[str, Any]:
    """Cluster, decode, draw; the tables coordinates, clusters and maps."""
    principal = latent.principal_components(ensemble.z_nq)
    most = count_distinct(ensemble.z_nq) if ensemble.weight_nc.shape[1] > 1 else settings.clusters
    clusters = cluster(ensemble.z_nq, min(settings.clusters, most), seed, by=settings.cluster_by)
    verdict = better_decoder(ensemble, settings.decoder, seed)
    embedded = settings.umap and ensemble.latent_dim > 2 and len(ensemble) > 4
    plane_n2 = latent.embed(ensemble.z_nq, seed) if embedded else None
    _draw_latent(page, principal, clusters, plane_n2)
    for name, figure in write_densities(page.folder, ensemble, principal, clusters, seed).items():
        page.add(name, figure)
    count = ensemble.latent_dim if settings.axes is None else min(settings.axes, ensemble.latent_dim)
    centres = {"kmeans": ensemble.z_nq[clusters.centre_k]}
    paths = {f"pc{i + 1}": principal.path(i, settings.frames) for i in range(count)}
    states, *followed = (
        write_series(page.folder, name, ensemble, z_mq, camera, verdict.name)
        for name, z_mq in (centres | paths).items()
    )
    _write_tables(page.folder, principal, clusters, plane_n2, [states, *followed])
    _draw_states(page, states, clusters)
    if settings.landscape:
        count, joined = settings.landscape, settings.landscape_states
        page.add("landscape", write_landscape(page.folder, ensemble, count, joined, camera, verdict.name, seed))
    for series in followed:
        if series.around.warning:
            say(f"{NOTICE}{series.name}: {series.around.warning}")
    players = [_player(page, series) for series in followed]
    return {
        "verdict": verdict,
        "latent": _components(principal, ensemble),
        "states": {
            "count": len(clusters.centre_k),
            "by": settings.cluster_by,
            "axis": states.axis,
            "decoder": verdict.sentence,
        },
        "players": players,
    }


def _draw_latent(page: Page, principal: Principal, clusters: Clusters, plane_n2: np.ndarray | None) -> None:
    names = [f"PC{i + 1} ({100 * share:.0f} %)" for i, share in enumerate(principal.share_p)]
    if len(names) == 1:
        page.add("pca", plots.line(principal.coordinate_np[:, 0], clusters, "z − mean"))
        return
    page.add("pca", plots.plane(principal.coordinate_np[:, :2], clusters, (names[0], names[1])))
    page.add("variance", plots.variance(principal))
    if plane_n2 is not None:
        page.add("umap", plots.plane(plane_n2, clusters, ("UMAP 1", "UMAP 2")))


def _components(principal: Principal, ensemble: Ensemble) -> list[dict[str, Any]]:
    """One row per principal component: its share of the variance, and how sure the images are of it."""
    reliability_p = principal.reliability(ensemble.uncertainty_nqq)
    return [
        {"number": i + 1, "share": f"{100 * share:.1f}", "reliability": f"{reliable:.2f}"}
        for i, (share, reliable) in enumerate(zip(principal.share_p, reliability_p, strict=True))
    ]


def _draw_states(page: Page, series: Series, clusters: Clusters) -> None:
    """The montage of the k-means maps, with the number and share of their images."""
    images_k = clusters.images_k
    rows = enumerate(zip(images_k, percentages(images_k), strict=True), start=1)
    captions = [f"{number}\n{count:,} ({share} %)" for number, (count, share) in rows]
    page.add(series.name, plots.montage(series, captions, plots.series_colours(len(captions))))


def percentages(count_k: np.ndarray) -> list[str]:
    """Shares in tenths of a percent that add up to 100 exactly: the largest remainders are rounded up."""
    exact_k = 1000 * count_k / count_k.sum()
    tenth_k = np.floor(exact_k).astype(int)
    tenth_k[np.argsort(tenth_k - exact_k, kind="stable")[: 1000 - tenth_k.sum()]] += 1
    return [f"{tenth / 10:.1f}" for tenth in tenth_k]


def _player(page: Page, series: Series) -> dict[str, Any]:
    """A film strip, and its frames for the page's slider."""
    colours = plots.series_colours(len(series.pictures))
    off_data, density = series.around.off_data_f, series.around.density_f
    captions = [f"({m})" if off else str(m) for m, off in enumerate(off_data, start=1)]
    page.add(series.name, plots.montage(series, captions, colours))
    z = [", ".join(f"{value:.2f}" for value in z_q) for z_q in series.z_mq]
    uris = [data_uri(_png(frame)) for frame in plots.frames(series, colours)]
    return {
        "name": series.name,
        "title": f"Principal component {series.name[2:]}",
        "frames": uris,
        "z": z,
        "near": ["no images are near" if off else f"density {d:.2g}" for d, off in zip(density, off_data, strict=True)],
        "off_data": int(off_data.sum()),
        "axis": series.axis,
    }


def _png(rgb_uw3: np.ndarray) -> bytes:
    file = io.BytesIO()
    imsave(file, rgb_uw3, format="png", origin="lower")
    return file.getvalue()


def _write_tables(
    folder: Path, principal: Principal, clusters: Clusters, plane_n2: np.ndarray | None, series: list[Series]
) -> None:
    """coordinates.parquet and clusters.parquet have one row per image, maps.parquet one per decoded map."""
    index_n = np.arange(len(clusters.label_n))
    columns = {f"pc{i + 1}": column for i, column in enumerate(principal.coordinate_np.T)}
    if plane_n2 is not None:
        columns |= {"umap1": plane_n2[:, 0], "umap2": plane_n2[:, 1]}
    pd.DataFrame({"index": index_n, **columns}).to_parquet(folder / "coordinates.parquet")
    centre_n = clusters.centre_k[clusters.label_n - 1]
    labels = pd.DataFrame({"index": index_n, "label": clusters.label_n, "centre": centre_n})
    labels.to_parquet(folder / "clusters.parquet")
    maps = [
        {"series": one.name, "map": m, **{f"z_{i}": value for i, value in enumerate(z_q)}, **facts}
        for one in series
        for m, (z_q, facts) in enumerate(zip(one.z_mq, one.around.facts, strict=True), start=1)
    ]
    pd.DataFrame(maps).to_parquet(folder / "maps.parquet")
