"""Maps decoded along a latent: written as MRC with a script that opens them in ChimeraX, and pictured.

Axes: m maps of a series, q latent.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphem.analysis.pictures import Camera, Picture
from morphem.io.mrc import write_map


@dataclass(frozen=True, eq=False)
class Series:
    """Maps that belong together: map m + 1 was decoded at `z_mq[m]`."""

    name: str
    z_mq: np.ndarray
    pictures: tuple[Picture, ...]
    pixel_A: float
    """Of the pictures."""

    def differences(self) -> list[np.ndarray]:
        """Each projection minus the mean of all: what moves, whatever the grey scale of the consensus."""
        mean_uw = np.mean([picture.projection_uw for picture in self.pictures], axis=0)
        return [picture.projection_uw - mean_uw for picture in self.pictures]


def write_series(
    folder: Path, name: str, z_mq: np.ndarray, maps: Iterable[np.ndarray], pixel_A: float, camera: Camera
) -> Series:
    """`name`/map_001.mrc … and `name`.cxc in `folder`; one map is in memory at a time."""
    pictures = []
    for number, map_zyx in enumerate(maps, start=1):
        write_map(folder / name / map_name(number), map_zyx, pixel_A)
        pictures.append(camera.picture(map_zyx))
    moving = name != "kmeans"
    (folder / f"{name}.cxc").write_text(chimerax_script(name, len(pictures), camera.level, moving))
    return Series(name, z_mq, tuple(pictures), pixel_A)


def map_name(number: int) -> str:
    """Maps are numbered from 1, like labels."""
    return f"map_{number:03d}.mrc"


def chimerax_script(name: str, count: int, level: float, moving: bool) -> str:
    """Commands that open a series with a slider; a path along the latent also plays, back and forth.

    Paths are relative: ChimeraX runs a script in the script's own folder.
    Source: ChimeraX User Guide, commands open, volume, vseries.
    """
    files = " ".join(f"{name}/{map_name(number)}" for number in range(1, count + 1))
    series = count > 1
    lines = [
        f"open {files}{' vseries true' if series else ''}",
        f"volume #1 style surface level {level:.6g} step 1 color lightsteelblue",
        "set bgColor white",
        "lighting soft",
        "graphics silhouettes true",
        "view",
    ]
    if series:
        lines.append("vseries slider #1")
    if series and moving:
        lines.append("vseries play #1 loop true direction oscillate maxFrameRate 8 cacheFrames " + str(count))
    return "\n".join(lines) + "\n"
