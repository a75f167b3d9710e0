"""Everything that `analysis/` holds: tables, maps, figures, and what the page that shows them is made of.

Axes: n images, q latent, p principal components, k clusters, m maps of a series.
"""

import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from morphem.analysis import Analysis, latent, plots
from morphem.analysis.decoders import Verdict, better_decoder
from morphem.analysis.free_energy import write_densities
from morphem.analysis.landscape import write_landscape
from morphem.analysis.latent import Principal
from morphem.analysis.maps import Series, camera_of, write_differences, write_series
from morphem.analysis.page import Page, painting, rgb
from morphem.analysis.pictures import VIEWS, Camera
from morphem.analysis.planes import Plane
from morphem.config import to_plain, to_words
from morphem.ensemble import Ensemble
from morphem.inference.clusters import Clusters, cluster, count_distinct, map_name
from morphem.io.mrc import read_map
from morphem.physics.fsc import HalfMapFsc, read_fsc_star
from morphem.run import NOTICE, say

UNPLOTTED = {"epoch", "seconds", "skipped", "images_per_s"}
"""Records of history.jsonl that say nothing about convergence."""
CONSENSUS_SIDE, STATE_SIDE = 64, 48
"""Voxels per axis of the maps that the page turns."""


def write_analysis(folder: Path, ensemble: Ensemble, settings: Analysis, seed: int) -> None:
    """Fill an empty folder: the consensus and its FSC; with latents also tables, clusters and paths."""
    if settings.decoder == "kernel":
        _ = ensemble.kernel  # refuses a run that it cannot decode, before anything is drawn
    camera = camera_of(ensemble)
    page = Page(folder, _facts(ensemble, settings, seed))
    page.facts["resolution"] = _resolution(_consensus(page, ensemble, camera))
    _history(page, ensemble)
    verdict = _latents(page, ensemble, settings, seed, camera) if ensemble.latent_dim else None
    page.write()
    if verdict:
        verdict.record(ensemble.folder)


def _facts(ensemble: Ensemble, settings: Analysis, seed: int) -> dict[str, Any]:
    words = to_words(to_plain(settings) | {"seed": seed}, to_plain(Analysis()) | {"seed": 0})
    analyze = shlex.join(["morphem", "analyze", ensemble.folder.resolve().name, *words])
    return {"analyze": analyze, "analysed": f"{datetime.now():%Y-%m-%d %H:%M}", "latent": None, "players": []}


def _consensus(page: Page, ensemble: Ensemble, camera: Camera) -> HalfMapFsc | None:
    """Pictures of the consensus; its half maps' FSC where there is one."""
    pictures = {axis: camera.picture(ensemble.consensus_zyx, axis) for axis in VIEWS}
    page.add("consensus", plots.consensus(pictures, ensemble.pixel_A))
    page.add_block("Consensus", camera, ensemble.consensus_zyx, CONSENSUS_SIDE, plots.STEEL)
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


def _history(page: Page, ensemble: Ensemble) -> None:
    """Plot every number that was recorded in at least two epochs."""
    records = [record for record in ensemble.history if isinstance(record.get("epoch"), (int, float))]
    numbers = [name for record in records for name, value in record.items() if type(value) in (int, float)]
    names = [name for name in dict.fromkeys(numbers) if name not in UNPLOTTED and numbers.count(name) > 1]
    if names:
        page.add("history", plots.history(records, names[:9]))


def _latents(page: Page, ensemble: Ensemble, settings: Analysis, seed: int, camera: Camera) -> Verdict:
    """Cluster, decode, draw; the tables coordinates, clusters and maps. The decoder that was taken."""
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
    if settings.differences:
        mask = ensemble.folder / "maps" / "mask.mrc"
        for series in (states, *followed):
            write_differences(page.folder, series, read_map(mask)[0] if mask.is_file() else 1.0, ensemble.pixel_A)
    if settings.landscape:
        count, joined = settings.landscape, settings.landscape_states
        page.add("landscape", write_landscape(page.folder, ensemble, count, joined, camera, verdict.name, seed))
    for series in followed:
        if series.around.warning:
            say(f"{NOTICE}{series.name}: {series.around.warning}")
    page.facts |= {
        "latent": _components(principal, ensemble),
        "decoder": verdict.sentence,
        "clustered_by": settings.cluster_by,
        "states": _states(page, states, clusters, camera),
        "seen_along": states.axis,
        "players": [_player(page, series) for series in followed],
    }
    return verdict


def _draw_latent(page: Page, principal: Principal, clusters: Clusters, plane_n2: np.ndarray | None) -> None:
    names = [f"PC{i + 1} ({100 * share:.0f} %)" for i, share in enumerate(principal.share_p)]
    if len(names) == 1:
        page.add("pca", plots.line(principal.coordinate_np[:, 0], clusters, "z − mean"))
        return
    planes = [("pca", "Principal components", (names[0], names[1]), principal.coordinate_np[:, :2])]
    if plane_n2 is not None:
        planes.append(("umap", "UMAP", ("UMAP 1", "UMAP 2"), plane_n2))
    for name, title, axes, point_n2 in planes:
        page.add(name, plots.plane(point_n2, clusters, axes))
        page.add_plane(title, axes, Plane.of(point_n2, clusters))
    page.add("variance", plots.variance(principal))


def _components(principal: Principal, ensemble: Ensemble) -> list[dict[str, Any]]:
    """One row per principal component: its share of the variance, and how sure the images are of it."""
    reliability_p = principal.reliability(ensemble.uncertainty_nqq)
    return [
        {"number": i + 1, "share": f"{100 * share:.1f}", "reliability": f"{reliable:.2f}"}
        for i, (share, reliable) in enumerate(zip(principal.share_p, reliability_p, strict=True))
    ]


def _states(page: Page, series: Series, clusters: Clusters, camera: Camera) -> list[dict[str, Any]]:
    """The montage of the k-means maps, and of every one its picture, images and resolution."""
    images_k, colours = clusters.images_k, plots.series_colours(len(series.pictures))
    shares = percentages(images_k)
    captions = [f"{k}\n{n:,} ({share} %)" for k, (n, share) in enumerate(zip(images_k, shares, strict=True), start=1)]
    page.add(series.name, plots.montage(series, captions, colours))
    page.data["colours"] = rgb(colours)
    for number, colour in enumerate(colours, start=1):
        map_zyx = read_map(page.folder / series.name / map_name(number))[0]
        page.add_block(f"State {number}", camera, map_zyx, STATE_SIDE, colour)
    corrected = _corrected(page.folder, len(images_k))
    return [
        {
            "picture": painting(plots.painted(one.surface_uw2, colours[k])),
            "images": int(images_k[k]),
            "share": shares[k],
            "interval": _interval(int(images_k[k]), int(images_k.sum())),
            "corrected": corrected[k],
            "resolution_A": series.resolution_A[k],
            "row": int(clusters.centre_k[k]),
            "z": _coordinates(series.z_mq[k]),
        }
        for k, one in enumerate(series.pictures)
    ]


def _interval(images: int, total: int) -> str:
    """What the share of images is known to, 95 % (Wilson), if all that is uncertain is which images were taken."""
    interval = binomtest(images, total).proportion_ci(method="wilson")
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _corrected(folder: Path, count: int) -> list[str]:
    """The share of molecules in each cluster's region, corrected for the blur of z, where that is known."""
    path = folder / "populations.parquet"
    if not path.is_file():
        return [""] * count
    percent = 100 * pd.read_parquet(path)[["corrected", "low", "high"]].to_numpy()
    return [f"{share:.1f} % ({low:.1f} to {high:.1f})" for share, low, high in percent]


def _coordinates(z_q: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in z_q) + ")"


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
    return {
        "name": series.name,
        "title": f"Principal component {series.name[2:]}",
        "frames": [painting(frame) for frame in plots.frames(series, colours)],
        "z": [_coordinates(z_q) for z_q in series.z_mq],
        "near": ["no images are near" if off else f"density {d:.2g}" for d, off in zip(density, off_data, strict=True)],
        "off_data": int(off_data.sum()),
        "axis": series.axis,
    }


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
        {"series": one.name, "map": m, "resolution_A": known, **{f"z_{i}": v for i, v in enumerate(z_q)}, **facts}
        for one in series
        for m, (z_q, known, facts) in enumerate(zip(one.z_mq, one.resolution_A, one.around.facts, strict=True), start=1)
    ]
    pd.DataFrame(maps).to_parquet(folder / "maps.parquet")
