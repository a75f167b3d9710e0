"""A plot for every check of `morphem validate`, in the style of all figures.

What a check gives to draw says itself how: bars (name -> number), a curve (x, y), or curves (name -> y) over one x.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from morphem.analysis import plots

COLOURS = ("#0072B2", "#D55E00", "#56B4E9", "#CC79A7")
DASHES = ("-", "--", ":", "-.")


def draw(folder: Path) -> None:
    """NAME.png beside validation.json, for every check that has something to draw, and for no other."""
    for check in json.loads((folder / "validation.json").read_text())["checks"]:
        path = folder / f"{check['name']}.png"
        if check["plot"]:
            plots.save(figure(check["plot"]), path)
        else:
            path.unlink(missing_ok=True)


@plots.styled
def figure(plot: dict[str, Any]) -> Figure:
    """One check's plot."""
    drawn = Figure(figsize=(4.0, 2.4 if plot["kind"] == "bars" else 2.8))
    axes = drawn.subplots()
    KINDS[plot["kind"]](axes, plot)
    axes.set(xlabel=plot.get("x_title", ""), ylabel=plot.get("y_title", ""))
    return drawn


def _bars(axes: Axes, plot: dict[str, Any]) -> None:
    names, values = list(plot["of"]), np.array(list(plot["of"].values()))
    axes.barh(np.arange(len(names)), values, height=0.6, color=COLOURS[0])
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="#4a5560", linewidth=0.8)
    reach = max(np.abs(values).max(initial=0), plot.get("level", 0), 1e-9)
    axes.set_xlim(
        min(values.min(initial=0), 0) - 0.02 * reach,
        1.18 * max(values.max(initial=0), plot.get("level", 0), 0.05 * reach),
    )
    for place, value in enumerate(values):
        axes.text(max(value, 0), place, f" {value:.2f}" if value % 1 else f" {value:.0f}", va="center", fontsize=7)
    if "level" in plot:
        axes.axvline(plot["level"], color="#4a5560", linewidth=0.8, linestyle=(0, (4, 3)))


def _curve(axes: Axes, plot: dict[str, Any]) -> None:
    axes.plot(plot["x"], plot["y"], color=COLOURS[0], marker="o" if len(plot["x"]) < 25 else "", markersize=3)


def _curves(axes: Axes, plot: dict[str, Any]) -> None:
    for (name, y), colour, dash in zip(plot["of"].items(), COLOURS, DASHES, strict=False):
        axes.plot(plot["x"], y, label=name, color=colour, linestyle=dash)
    if "level" in plot:
        axes.axhline(plot["level"], color="#4a5560", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.legend(loc="best")


KINDS = {"bars": _bars, "curve": _curve, "curves": _curves}
