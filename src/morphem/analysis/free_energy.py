"""Populations of clusters and free energies along the principal components, with tables and figures.

Axes: n images, g places, d coordinates, q latent, k clusters, r replicates, x y a plane.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.ndimage import correlate1d

from morphem.analysis.density import IMAGES, Blurred, interval, resampled, shares
from morphem.analysis.latent import Principal
from morphem.analysis.plots import styled
from morphem.ensemble import Ensemble
from morphem.inference.clusters import Clusters
from morphem.inference.nearest import landmarks, nearest

PLACES = 500
"""At so many places in z populations may be."""
GRID, GRID_PLANE = 80, 40
"""Places along PC1, and along each side of the plane."""
HIGHEST = 6
"""Free energies are drawn up to so many kT: there are e⁶ = 400 times fewer molecules there than at the lowest."""


def write_densities(
    folder: Path, ensemble: Ensemble, principal: Principal, clusters: Clusters, seed: int
) -> dict[str, Figure]:
    """populations.parquet, free_energy.parquet and free_energy_plane.parquet, and their figures.

    Nothing for a run that does not say how uncertain its latents are.
    """
    if not ensemble.uncertainty_nqq.any():
        return {}
    blurred = Blurred.of(ensemble.z_nq, ensemble.uncertainty_nqq, seed)
    states = populations(ensemble.z_nq, clusters, blurred, seed)
    line = free_energy(blurred, principal, seed)
    plane = free_energy_plane(blurred, principal, seed) if ensemble.latent_dim > 1 else None
    tables = {"populations": states, "free_energy": line, "free_energy_plane": plane}
    for name, table in tables.items():
        if table is not None:
            table.to_parquet(folder / f"{name}.parquet")
    return {"populations": draw_populations(states), "free_energy": draw_energies(line, plane)}


def populations(z_nq: np.ndarray, clusters: Clusters, blurred: Blurred, seed: int) -> pd.DataFrame:
    """The share of molecules in each cluster's region of z: a row a cluster.

    `share` counts the images' labels. `corrected` sums the shares of places in z, each of which has the label of the
    image nearest to it.
    """
    place_gd = blurred.drawn(seed)[landmarks(len(blurred.mean_nd), PLACES, seed)]
    share_rg = shares(blurred.likelihood(place_gd), resampled(len(blurred.mean_nd), seed))
    label_g = clusters.label_n[nearest(z_nq, place_gd, 1)[1][:, 0]]
    images_k = clusters.images_k
    number_k = np.arange(1, len(images_k) + 1)
    share_rk = share_rg @ (label_g[:, None] == number_k)
    columns = {"label": number_k, "images": images_k, "share": images_k / images_k.sum()}
    return pd.DataFrame(columns | interval(share_rk))


def free_energy(blurred: Blurred, principal: Principal, seed: int) -> pd.DataFrame:
    """−ln p along PC1 in kT, least 0: of z̄ as they are (uncorrected), corrected, and its 95 % interval."""
    line = blurred.along(principal, 1)
    grid_g, width = _grid(line.drawn(seed)[:, 0], GRID)
    share_rg = shares(line.likelihood(grid_g[:, None]), resampled(len(line.mean_nd), seed), smoothed)
    edge = np.append(grid_g - width / 2, grid_g[-1] + width / 2)
    counted_g = np.histogram(line.mean_nd[:, 0], edge)[0][None]
    energy = {"pc1": grid_g, "uncorrected": energies(smoothed(counted_g))[0]}
    return pd.DataFrame(energy | interval(energies(share_rg)))


def free_energy_plane(blurred: Blurred, principal: Principal, seed: int) -> pd.DataFrame:
    """−ln p in the plane of PC1 and PC2 in kT, least 0: a row for each place."""
    plane = blurred.along(principal, 2)
    sides = [_grid(x_n, GRID_PLANE)[0] for x_n in plane.drawn(seed).T]
    place_gd = np.stack([x.ravel() for x in np.meshgrid(*sides, indexing="ij")], axis=1)

    def smoothed_plane(p_rg: np.ndarray) -> np.ndarray:
        return smoothed(p_rg.reshape(-1, GRID_PLANE, GRID_PLANE), (1, 2)).reshape(p_rg.shape)

    share_rg = shares(plane.likelihood(place_gd), np.ones((1, len(plane.mean_nd))), smoothed_plane)
    return pd.DataFrame({"pc1": place_gd[:, 0], "pc2": place_gd[:, 1], "corrected": energies(share_rg)[0]})


def _grid(x_n: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Equal steps over nearly all of some places, and the step."""
    low, high = np.percentile(x_n, [0.1, 99.9])
    grid_g = np.linspace(low, high, count)
    return grid_g, float(grid_g[1] - grid_g[0])


def smoothed(p_rg: np.ndarray, axes: tuple[int, ...] = (1,)) -> np.ndarray:
    """Half of each share, and a quarter of either neighbour's, along each axis; the sum stays."""
    for axis in axes:
        p_rg = correlate1d(p_rg.astype(np.float32), [0.25, 0.5, 0.25], axis=axis, mode="reflect")
    return p_rg


def energies(p_rg: np.ndarray) -> np.ndarray:
    """−ln p, least 0; where there is less than a thousandth of an image among all it goes no further."""
    p_rg = np.maximum(p_rg / p_rg.sum(-1, keepdims=True), 1e-3 / IMAGES)
    return -np.log(p_rg / p_rg.max(-1, keepdims=True))


@styled
def draw_populations(states: pd.DataFrame) -> Figure:
    """Each cluster's share: bars count labels, points are corrected, with their 95 % intervals."""
    figure = Figure(figsize=(max(3.4, 1.4 + 0.3 * len(states)), 2.8))
    axes = figure.subplots()
    axes.bar(states["label"], 100 * states["share"], color="#c8d7e6", label="labels of images")
    middle, low, high = (100 * states[name] for name in ("corrected", "low", "high"))
    reach = np.abs([np.minimum(low, middle) - middle, np.maximum(high, middle) - middle])
    axes.errorbar(states["label"], middle, reach, fmt="o", markersize=3, color="#D55E00", label="corrected, 95 %")
    axes.set(xlabel="Cluster", ylabel="Share (%)", xticks=states["label"], ylim=(0, 1.3 * high.max()))
    axes.tick_params(axis="x", labelsize=7)
    axes.legend(loc="best")
    return figure


@styled
def draw_energies(line: pd.DataFrame, plane: pd.DataFrame | None) -> Figure:
    """−ln p along PC1 with its interval, and in the plane of PC1 and PC2."""
    figure = Figure(figsize=(4.0 if plane is None else 8.4, 3.2))
    axes, *beside = np.atleast_1d(figure.subplots(1, 1 if plane is None else 2))
    axes.fill_between(line["pc1"], line["low"], line["high"], color="#f3cdb5", label="95 % interval", linewidth=0)
    axes.plot(line["pc1"], line["corrected"], color="#D55E00", label="corrected")
    axes.plot(line["pc1"], line["uncorrected"], color="#4a5560", linestyle="--", linewidth=1, label="as z is")
    axes.set(xlabel="PC1", ylabel="Free energy −ln p (kT)", ylim=(-0.2, HIGHEST))
    axes.legend(loc="best")
    for side in beside:
        assert plane is not None
        energy_xy = plane.pivot(index="pc1", columns="pc2", values="corrected")
        drawn = np.ma.masked_greater(energy_xy.to_numpy().T, HIGHEST)
        levels = np.linspace(0, HIGHEST, 13)
        filled = side.contourf(energy_xy.index, energy_xy.columns, drawn, levels=levels, cmap="cividis")
        figure.colorbar(filled, ax=side, label="−ln p (kT)", pad=0.02)
        side.set(xlabel="PC1", ylabel="PC2")
    return figure
