"""Figures, all in one style and without a display: each function returns a matplotlib Figure.

Axes: n images, q latent, p principal components, k clusters, m maps of a series; pictures are (up, right).
"""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import ndimage

from morphem.analysis.latent import Principal
from morphem.analysis.maps import Series
from morphem.analysis.pictures import SIDE, VIEWS, Picture
from morphem.inference.clusters import Clusters
from morphem.physics.fsc import GOLD, HalfMapFsc

STYLE = Path(__file__).with_name("morphem.mplstyle")
STEEL = "#8fb3d9"
INK = "#22303c"
SCALE_BARS_A = np.array([10, 20, 50, 100, 200, 500])
DENSITY = "cividis_r"
"""Colours of how many images there are: the more, the darker, for every eye and in print."""
SMOOTH = {"interpolation": "antialiased"}
OUTLINED = 0.25
"""Of the largest difference in a series."""
ACROSS = 10
"""Most maps in a row of a montage."""


@cache
def _style() -> matplotlib.RcParams:
    return matplotlib.rc_params_from_file(STYLE, use_default_template=False)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, in the style it was made in."""
    with matplotlib.rc_context(_style()):
        figure.savefig(path, format="png")


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a function draw in the style of all figures."""

    @wraps(draw)
    def inside(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(_style()):
            return draw(*args, **kwargs)

    return inside


def series_colours(count: int) -> np.ndarray:
    """One colour per map, (m, 3), dark to light along the series; the same in plots and pictures."""
    return colormaps["viridis"](np.linspace(0.12, 0.88, count))[:, :3] if count > 1 else np.array([to_rgb(STEEL)])


def painted(surface_uw2: np.ndarray, colour) -> np.ndarray:
    """A lit surface in a colour on white, RGB (up, right, 3)."""
    bright_uw1, cover_uw1 = surface_uw2[..., :1], surface_uw2[..., 1:]
    pale = 0.35 + 0.65 * np.asarray(to_rgb(colour))
    return 1 - cover_uw1 + cover_uw1 * np.clip(1.2 * bright_uw1 * pale, 0, 1)


@styled
def consensus(pictures: dict[str, Picture], pixel_A: float) -> Figure:
    """Surface, projection and central section along the three axes."""
    figure = Figure(figsize=(4.6, 5.0))
    grid = figure.subplots(3, 3)
    for column, (axis, picture) in zip(grid.T, pictures.items(), strict=True):
        _picture(column[0], painted(picture.surface_uw2, STEEL), title=f"along {axis}")
        column[0].set_xlabel(VIEWS[axis], fontsize=7)
        _picture(column[1], picture.projection_uw, cmap="gray")
        _picture(column[2], picture.section_uw, cmap="gray")
    for row, name in zip(grid, ("surface", "projection", "central section"), strict=True):
        row[0].set_ylabel(name)
    first = next(iter(pictures.values()))
    _scale_bar(grid[1, 0], len(first.projection_uw), pixel_A)
    return figure


@styled
def fsc(curves: HalfMapFsc) -> Figure:
    """The half maps' FSC against spatial frequency, with the resolution read off it."""
    figure = Figure(figsize=(4.0, 3.3))
    axes = figure.subplots()
    frequency_s = curves.frequency_s
    for name, value_s, first, colour, line in (
        ("unmasked", curves.unmasked_s, 1, "#56B4E9", "--"),
        ("masked", curves.masked_s, 1, "#0072B2", "-"),
        ("masked, phases randomised", curves.randomised_s, curves.randomised_from, "#CC79A7", ":"),
        ("masked, corrected", curves.corrected_s, 1, "black", "-"),
    ):
        if first is not None:
            axes.plot(frequency_s[first:], value_s[first:], label=name, color=colour, linestyle=line)
    axes.axhline(GOLD, color="#4a5560", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.axhline(0, color="#c8ced4", linewidth=0.8, zorder=0)
    if curves.resolution_A and 1 / curves.resolution_A < frequency_s[-1]:
        crossing = (1 / curves.resolution_A, GOLD)
        axes.plot(*crossing, "o", color="#D55E00", zorder=5)
        axes.annotate(f"{curves.resolution_A:.2f} Å", crossing, (7, 7), textcoords="offset points", weight="bold")
    axes.set(xlim=(0, frequency_s[-1]), ylim=(min(-0.05, curves.corrected_s.min()), 1.03))
    axes.set(xlabel="Spatial frequency (1/Å)", ylabel="Fourier shell correlation")
    axes.text(frequency_s[-1], GOLD, "0.143", ha="right", va="bottom", fontsize=7, color="#4a5560")
    axes.legend(loc="best")
    return figure


@styled
def history(records: Sequence[dict[str, Any]], names: Sequence[str]) -> Figure:
    """One panel per recorded quantity, against epochs."""
    rows, across = -(-len(names) // 3), min(3, len(names))
    figure = Figure(figsize=(3.0 * across, 2.3 * rows))
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, across, place)
        points = [(record["epoch"], record[name]) for record in records if record.get(name) is not None]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3)
        axes.set(title=name.replace("_", " "), xlabel="Epoch")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=6))
    return figure


@styled
def variance(principal: Principal) -> Figure:
    """What each principal component explains of the latents' variance."""
    figure = Figure(figsize=(3.4, 2.6))
    axes = figure.subplots()
    number_p = np.arange(1, len(principal.share_p) + 1)
    axes.bar(number_p, 100 * principal.share_p, color="#0072B2", width=0.7)
    axes.plot(number_p, 100 * np.cumsum(principal.share_p), color=INK, marker="o", markersize=3, label="cumulative")
    axes.set(xlabel="Principal component", ylabel="Variance of z (%)", ylim=(0, 105))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.legend(loc="best")
    return figure


@styled
def plane(point_n2: np.ndarray, clusters: Clusters, names: tuple[str, str]) -> Figure:
    """The images on a plane: their density with the numbered centres, and their clusters."""
    figure = Figure(figsize=(8.9, 3.9))
    groups, density = figure.subplots(1, 2, sharex=True, sharey=True)
    colour_k3 = series_colours(len(clusters.centre_k))
    order_n = np.random.default_rng(0).permutation(len(point_n2))
    size = float(np.clip(2e4 / len(point_n2), 0.4, 12))
    colour_n3 = colour_k3[clusters.label_n[order_n] - 1]
    groups.scatter(*point_n2[order_n].T, s=size, c=colour_n3, linewidths=0, rasterized=True)
    grid = int(np.clip(np.sqrt(len(point_n2)) * 0.5, 15, 90))
    cells = density.hexbin(*point_n2.T, gridsize=grid, mincnt=1, cmap=DENSITY, linewidths=0.2, bins="log")
    figure.colorbar(cells, ax=density, label="Images per cell", pad=0.02, format=ticker.FormatStrFormatter("%d"))
    for axes, name in ((groups, "Clusters"), (density, "Density")):
        _centres(axes, point_n2[clusters.centre_k])
        axes.set(title=name, xlabel=names[0])
    groups.set_ylabel(names[1])
    return figure


def _centres(axes: Axes, point_k2: np.ndarray) -> None:
    """Where each map was decoded, with its number."""
    disc = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": INK, "linewidth": 0.6}
    for number, (x, y) in enumerate(point_k2, start=1):
        axes.annotate(str(number), (x, y), ha="center", va="center", fontsize=6, bbox=disc)


@styled
def line(coordinate_n: np.ndarray, clusters: Clusters, name: str) -> Figure:
    """A latent of one dimension: its histogram, with the numbered centres."""
    figure = Figure(figsize=(6.4, 3.0))
    axes = figure.subplots()
    axes.hist(coordinate_n, bins=60, color="#0072B2")
    top, place_k = axes.get_ylim()[1], coordinate_n[clusters.centre_k]
    height_k = np.where(np.arange(len(place_k)) % 2, 1.05, 1.14) * top
    _centres(axes, np.stack([place_k, height_k], axis=1))
    axes.set(xlabel=name, ylabel="Images", ylim=(0, 1.22 * top))
    return figure


@styled
def montage(series: Series, captions: Sequence[str], colours: np.ndarray) -> Figure:
    """Every map of a series: its surface above, its projection minus the series' mean below."""
    count = len(series.pictures)
    across = min(count, ACROSS)
    rows = -(-count // across)
    figure = Figure(figsize=(0.92 * max(across, 4), 2.1 * rows))
    grid = figure.subplots(2 * rows, across, squeeze=False)
    differences, limit = _differences(series)
    for number, (picture, difference, caption) in enumerate(zip(series.pictures, differences, captions, strict=True)):
        row, column = divmod(number, across)
        _picture(grid[2 * row, column], painted(picture.surface_uw2, colours[number]), title=caption, **SMOOTH)
        _picture(grid[2 * row + 1, column], signed(difference, limit), **SMOOTH)
    for axes in grid.T.ravel():
        axes.set_axis_off()
    _scale_bar(grid[1, 0], SIDE, series.pixel_A * len(differences[0]) / SIDE, INK)
    return figure


def frames(series: Series, colours: np.ndarray) -> list[np.ndarray]:
    """What a player shows: surface and difference side by side, RGB (up, right, 3)."""
    differences, limit = _differences(series)
    drawn = zip(series.pictures, differences, colours, strict=True)
    return [
        np.concatenate([painted(picture.surface_uw2, colour), signed(difference, limit)], axis=1)
        for picture, difference, colour in drawn
    ]


def _differences(series: Series) -> tuple[np.ndarray, float]:
    """Those of a series, and the largest of them."""
    differences = series.differences()
    return differences, max(float(np.abs(differences).max()), 1e-12)


def signed(difference_uw: np.ndarray, limit: float) -> np.ndarray:
    """More in red with an outline, so that it is told from less, in blue, without colours too; RGB (up, right, 3)."""
    smooth_uw = np.asarray(ndimage.zoom(difference_uw, SIDE / len(difference_uw), order=1))
    rgb_uw3 = colormaps["RdBu_r"](0.5 + 0.5 * smooth_uw / limit)[..., :3]
    more_uw = smooth_uw > OUTLINED * limit
    rgb_uw3[more_uw & ~ndimage.binary_erosion(more_uw, iterations=2)] = to_rgb(INK)
    return rgb_uw3


def _picture(axes: Axes, picture: np.ndarray, title: str = "", **look) -> None:
    axes.imshow(picture, **look)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=7, loc="center", weight="normal", pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _scale_bar(axes: Axes, side: int, pixel_A: float, colour: str = "white") -> None:
    """A bar of a round length, about a quarter of the picture."""
    length_A = SCALE_BARS_A[np.abs(SCALE_BARS_A - side * pixel_A / 4).argmin()]
    start = 0.05 * side
    axes.plot([start, start + length_A / pixel_A], [start, start], color=colour, linewidth=2, solid_capstyle="butt")
    axes.text(start, start + 0.03 * side, f"{length_A} Å", color=colour, fontsize=7, va="bottom")
