"""The page: made at any time, at no cost, from what `analysis/` keeps, the run's own files and its validation.

Axes: m colours; z y x maps; u w 3 pictures (up, right).
"""

import base64
import gzip
import io
import json
import platform
import shlex
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imsave

from morphem import methods
from morphem.analysis import plots
from morphem.analysis.pictures import AMBIENT, LIGHT, Camera
from morphem.analysis.planes import Plane
from morphem.config import to_plain, to_words
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.run import NOTICE

FACTS = "page.json"
DPI = 110
"""Figures are shown at this many of the page's pixels per inch, so that all their letters have one size."""
LIBRARIES = ("numpy", "torch", "scikit-learn", "umap-learn")
SYMBOLS = {"holds": "✓", "doubtful": "!", "fails": "✗", "cannot tell": "?"}
"""Of a verdict, beside its word and its colour."""


@dataclass
class Page:
    """What the page is made of: figures as .png, everything else in page.json."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    """What the template is filled with."""
    data: dict[str, Any] = field(default_factory=lambda: {"look": look(), "blocks": [], "planes": [], "colours": []})
    """What the page's scripts read: maps to turn, planes, a colour for each state."""
    width: dict[str, int] = field(default_factory=dict)
    """Name of a figure -> its width in the page's pixels, in the order of being added."""

    def add(self, name: str, figure: Figure) -> None:
        """Write `name`.png and keep it for the page."""
        plots.save(figure, self.folder / f"{name}.png")
        self.width[name] = round(DPI * figure.get_figwidth())

    def add_block(self, title: str, camera: Camera, map_zyx: np.ndarray, side: int, colour: Any) -> None:
        """A map for the page to turn."""
        byte_zyx, step = camera.block(map_zyx, side)
        block = {"title": title, "side": side, "step": step, "level": camera.level, "bytes": packed(byte_zyx)}
        self.data["blocks"].append(block | {"colour": rgb([to_rgb(colour)])[0]})

    def add_plane(self, title: str, axes: tuple[str, str], plane: Plane) -> None:
        """For the page to draw: rows from low to high, 32 bits a number of images, 16 a label."""
        cells = {"images": packed(plane.count_yx.astype("<u4")), "labels": packed(plane.label_yx.astype("<u2"))}
        frame = {"side": len(plane.count_yx), "frame": [*plane.low_2.tolist(), *plane.high_2.tolist()]}
        about = {"title": title, "axes": axes, "centres": plane.centre_k2.tolist()}
        self.data["planes"].append(cells | frame | about)

    def write(self) -> None:
        """page.json."""
        kept = {"facts": self.facts, "data": self.data, "width": self.width}
        (self.folder / FACTS).write_text(json.dumps(kept), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Page":
        """What was written. Errors: InputError where there is none."""
        path = folder / FACTS
        if not path.is_file():
            raise InputError(f"{folder.parent}: has no analysis/{FACTS}; run `morphem analyze {folder.parent}` first")
        return cls(folder, **json.loads(path.read_text(encoding="utf-8")))

    def figures(self) -> dict[str, tuple[str, int]]:
        """Name -> data URI, width."""
        return {
            name: (data_uri((self.folder / f"{name}.png").read_bytes()), width) for name, width in self.width.items()
        }


def render(ensemble: Ensemble) -> str:
    """The page, with everything inside. Errors: InputError where the run was not analysed."""
    page = Page.read(ensemble.folder / "analysis")
    loader = PackageLoader("morphem.analysis", ".")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    return environment.get_template("report.html.j2").render(
        **_told(ensemble), **page.facts, **_validation(ensemble.folder), data=page.data, figures=page.figures()
    )


def _told(ensemble: Ensemble) -> dict[str, Any]:
    """What was run, with what, and what it warned of."""
    folder = ensemble.folder.resolve()
    log = (folder / "run.log").read_text().splitlines() if (folder / "run.log").is_file() else []
    citations = folder / "citations.bib"
    return {
        "run": folder.name,
        "config": ensemble.config,
        "images": len(ensemble),
        "latent_dim": ensemble.latent_dim,
        "dates": [line[:16] for line in (log[:1] + log[-1:])],
        "warnings": [line.partition(NOTICE)[2] for line in log if NOTICE in line],
        "fit": fit_command(ensemble.config, folder.name),
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "citations": citations.read_text() if citations.is_file() else "",
    }


def fit_command(config: dict[str, Any], output: str) -> str:
    """The command that a run's config.yaml came from: what is not a default."""
    of_method = to_plain(methods.load(config["method"]).Config())
    given = {name: value for name, value in config["source"].items() if value is not False}
    words = ["morphem", "fit", config["method"], given.pop("particles"), *to_words(given, {})]
    words += [*to_words(config["settings"], of_method), *to_words({"seed": config["seed"]}, {"seed": 0})]
    return shlex.join([*words, "-o", output])


def _validation(folder: Path) -> dict[str, Any]:
    """The verdicts of `morphem validate`, each with its plot where there is one; None where it has not run."""
    path = folder / "validation" / "validation.json"
    if not path.is_file():
        return {"validation": None, "symbols": SYMBOLS}
    found = json.loads(path.read_text(encoding="utf-8"))
    for check in found["checks"]:
        plot = path.with_name(f"{check['name']}.png")
        check["plot"] = data_uri(plot.read_bytes()) if plot.is_file() else None
    return {"validation": found, "symbols": SYMBOLS}


def look() -> dict[str, Any]:
    """What the page's scripts draw with, the same as in all pictures; the light comes from right, up, front."""
    light_3 = LIGHT[::-1] / np.linalg.norm(LIGHT)
    ramp_m3 = colormaps[plots.DENSITY](np.linspace(0, 1, 64))[:, :3]
    return {"light": light_3.tolist(), "ambient": AMBIENT, "ramp": rgb(ramp_m3)}


def rgb(colour_m3: Any) -> list[list[int]]:
    """Colours of 0 to 1 as bytes."""
    return np.round(255 * np.asarray(colour_m3)).astype(int).tolist()


def packed(array: np.ndarray) -> str:
    """An array's bytes, compressed, as text; the page's `unpacked` reads it."""
    return base64.b64encode(gzip.compress(np.ascontiguousarray(array).tobytes(), 9, mtime=0)).decode()


def data_uri(png: bytes) -> str:
    """A picture as part of a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def painting(rgb_uw3: np.ndarray) -> str:
    """A picture that no file holds, as part of a page."""
    file = io.BytesIO()
    imsave(file, rgb_uw3, format="png", origin="lower")
    return data_uri(file.getvalue())
