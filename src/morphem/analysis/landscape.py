"""The landscape of maps: what many maps all over the latent have in common, and the states they fall into.

Distances in z need not be distances between maps. Here maps are vectors of the voxels in the mask, V_m at the image
nearest to the centre of k-means cluster m, weighted by its share w_m of the images:

    V_m = V̄ + Σ_p a_mp u_p,   u_p the principal components of the maps,

and states are joined from the a_mp by Ward's linkage.
Axes: n images, m maps, v voxels in the mask, p components, s states, q latent, z y x.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import fcluster, linkage

from morphem.analysis.latent import between
from morphem.analysis.maps import chimerax_script, decoded
from morphem.analysis.pictures import VIEWS, Camera
from morphem.analysis.plots import INK, STEEL, painted, series_colours, styled
from morphem.ensemble import Ensemble
from morphem.inference.clusters import cluster, count_distinct, map_name
from morphem.io.mrc import read_map, write_map
from morphem.physics.masks import sphere

COMPONENTS = 10
"""Most components of maps that are kept."""


@dataclass(frozen=True, eq=False)
class Landscape:
    """Maps as mean and components, and the state of each, from 1."""

    weight_m: np.ndarray
    mean_v: np.ndarray
    axis_pv: np.ndarray
    coordinate_mp: np.ndarray
    share_p: np.ndarray
    """Of the maps' variance, what each component explains."""
    state_m: np.ndarray

    @classmethod
    def of(cls, map_mv: np.ndarray, weight_m: np.ndarray, states: int) -> "Landscape":
        """Eigenvectors of the maps' scalar products, so that no matrix of voxels by voxels is made."""
        weight_m = weight_m / weight_m.sum()
        mean_v = weight_m @ map_mv
        centred_mv = np.sqrt(weight_m)[:, None] * (map_mv - mean_v)
        value_p, vector_mp = (found[..., ::-1] for found in np.linalg.eigh((centred_mv @ centred_mv.T).astype(float)))
        kept = slice(min(COMPONENTS, int((value_p > 1e-9 * value_p[0]).sum())))
        axis_pv = (vector_mp[:, kept] / np.sqrt(value_p[kept])).T @ centred_mv
        coordinate_mp = (map_mv - mean_v) @ axis_pv.T
        state_m = fcluster(linkage(coordinate_mp, "ward"), states, "maxclust")
        return cls(weight_m, mean_v, axis_pv, coordinate_mp, value_p[kept] / value_p.sum(), state_m)

    def means(self, x_md: np.ndarray) -> np.ndarray:
        """Weighted means over the maps of each state, (s, d)."""
        weight_sm = self.weight_m * (np.arange(1, self.state_m.max() + 1)[:, None] == self.state_m)
        return weight_sm @ x_md / weight_sm.sum(1, keepdims=True)


def write_landscape(
    analysis: Path, ensemble: Ensemble, count: int, states: int, camera: Camera, decoder: str, seed: int
) -> Figure:
    """Fill landscape/ with state_001.mrc … (mean maps of the states), mean.mrc, pc1.mrc … (components, one standard
    deviation long), maps.parquet, states.parquet, coordinates.parquet (a row per image); the figure of it.

    Maps are 0 outside the mask. An image's coordinates are those of the maps at the five nearest z, weighted by
    1/distance; its state is that of the nearest.
    """
    folder = analysis / "landscape"
    clusters = cluster(ensemble.z_nq, min(count, count_distinct(ensemble.z_nq)), seed)
    z_mq, inside_zyx = ensemble.z_nq[clusters.centre_k], _inside(ensemble)
    map_mv = np.stack([map_zyx[inside_zyx] for map_zyx in decoded(ensemble, z_mq, decoder)])
    found = Landscape.of(map_mv, clusters.images_k, states)
    state_sv, length_p = found.means(map_mv), np.sqrt(found.weight_m @ found.coordinate_mp**2)
    named = {map_name(s).replace("map", "state"): mean_v for s, mean_v in enumerate(state_sv, start=1)}
    named |= {"mean.mrc": found.mean_v}
    named |= {f"pc{p + 1}.mrc": length_p[p] * axis_v for p, axis_v in enumerate(found.axis_pv)}
    for name, value_v in named.items():
        write_map(folder / name, _whole(value_v, inside_zyx), ensemble.pixel_A)
    files = [name for name in named if name.startswith("state")]
    (folder / "states.cxc").write_text(chimerax_script(files, camera.level, playing=False))
    state_n = found.state_m[clusters.label_n - 1]
    coordinate_np = between(z_mq, found.coordinate_mp, ensemble.z_nq)
    _write_tables(folder, found, z_mq, clusters.images_k, coordinate_np, state_n)
    surfaces = [_surface(_whole(mean_v, inside_zyx), camera) for mean_v in state_sv]
    return draw(found, coordinate_np, surfaces, np.bincount(state_n)[1:] / len(state_n))


def _inside(ensemble: Ensemble) -> np.ndarray:
    """The voxels of the run's mask; without one those of the sphere in the box."""
    mask = ensemble.folder / "maps" / "mask.mrc"
    return (read_map(mask)[0] if mask.is_file() else sphere(ensemble.box, ensemble.box / 2 - 1)) > 0.5


def _whole(value_v: np.ndarray, inside_zyx: np.ndarray) -> np.ndarray:
    map_zyx = np.zeros(inside_zyx.shape, np.float32)
    map_zyx[inside_zyx] = value_v
    return map_zyx


def _surface(map_zyx: np.ndarray, camera: Camera) -> np.ndarray:
    return painted(camera.picture(map_zyx, next(iter(VIEWS))).surface_uw2, STEEL)


def _write_tables(
    folder: Path,
    found: Landscape,
    z_mq: np.ndarray,
    images_m: np.ndarray,
    coordinate_np: np.ndarray,
    state_n: np.ndarray,
) -> None:
    """maps.parquet and states.parquet: where they are among the maps; coordinates.parquet: where the images are."""
    number_m, number_s = np.arange(1, len(z_mq) + 1), np.arange(1, found.state_m.max() + 1)
    maps = {"map": number_m, "images": images_m, "state": found.state_m}
    maps |= {f"z_{i}": z_m for i, z_m in enumerate(z_mq.T)} | _columns(found.coordinate_mp)
    counts = {"state": number_s, "maps": np.bincount(found.state_m)[1:], "images": np.bincount(state_n)[1:]}
    images = {"index": np.arange(len(state_n)), "state": state_n} | _columns(coordinate_np)
    tables = {"maps": maps, "states": counts | _columns(found.means(found.coordinate_mp)), "coordinates": images}
    for name, columns in tables.items():
        pd.DataFrame(columns).to_parquet(folder / f"{name}.parquet")


def _columns(coordinate_xp: np.ndarray) -> dict[str, np.ndarray]:
    return {f"map_pc{p + 1}": value_x for p, value_x in enumerate(coordinate_xp.T)}


@styled
def draw(found: Landscape, coordinate_np: np.ndarray, surfaces: list[np.ndarray], share_s: np.ndarray) -> Figure:
    """The images among the components of maps, with the numbered states; the states' mean maps."""
    across, colour_s = min(5, len(surfaces)), series_colours(len(surfaces))
    figure = Figure(figsize=(4.2 + 0.95 * across, 3.6))
    plane, states = figure.subfigures(1, 2, width_ratios=[4.2, 0.95 * across])  # pyright: ignore
    axes = plane.subplots()
    second = min(1, len(found.share_p) - 1)
    axes.hexbin(coordinate_np[:, 0], coordinate_np[:, second], gridsize=50, mincnt=1, cmap="Greys", bins="log")
    x_m, y_m = found.coordinate_mp[:, 0], found.coordinate_mp[:, second]
    axes.scatter(x_m, y_m, s=14, c=colour_s[found.state_m - 1], edgecolors="white", linewidths=0.4)
    disc = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": INK, "linewidth": 0.6}
    for number, place_p in enumerate(found.means(found.coordinate_mp), start=1):
        axes.annotate(str(number), (place_p[0], place_p[second]), ha="center", va="center", fontsize=6, bbox=disc)
    names = [f"map PC{p + 1} ({100 * found.share_p[p]:.0f} %)" for p in (0, second)]
    axes.set(xlabel=names[0], ylabel=names[1], title="Maps and images")
    grid = states.subplots(-(-len(surfaces) // across), across, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, surface_uw3, share, number in zip(grid, surfaces, share_s, range(1, len(surfaces) + 1), strict=False):
        axes.imshow(surface_uw3)
        axes.set_title(f"{number}\n{100 * share:.1f} %", fontsize=7, loc="center", weight="normal", pad=2)
    return figure
