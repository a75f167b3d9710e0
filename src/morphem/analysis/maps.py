"""Maps decoded along a latent: written as MRC with a script that opens them in ChimeraX, and pictured.

Axes: m maps of a series, q latent.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphem.analysis.paths import Surroundings, surroundings
from morphem.analysis.pictures import VIEWS, Camera, Picture
from morphem.ensemble import Ensemble
from morphem.inference.clusters import map_name
from morphem.io.mrc import read_map, write_map
from morphem.run import tracked


@dataclass(frozen=True, eq=False)
class Series:
    """Maps that belong together: map m + 1 was decoded at `z_mq[m]`; all are seen along one axis."""

    name: str
    z_mq: np.ndarray
    pictures: tuple[Picture, ...]
    axis: str
    pixel_A: float
    """Of the pictures."""
    resolution_A: tuple[float | None, ...]
    """Of each map's half maps, where its decoder makes any."""
    around: Surroundings

    def differences(self) -> np.ndarray:
        """Each projection minus the mean of all: what moves, whatever the grey scale of the consensus."""
        projection_muw = np.stack([picture.projection_uw for picture in self.pictures])
        return projection_muw - projection_muw.mean(0)


def camera_of(ensemble: Ensemble) -> Camera:
    """Crop and contour level that fit the run's consensus, within its mask where it has one."""
    mask = ensemble.folder / "maps" / "mask.mrc"
    return Camera.of(ensemble.consensus_zyx, read_map(mask)[0] if mask.is_file() else None)


def decoded(
    ensemble: Ensemble, z_mq: np.ndarray, decoder: str = "model", box: int | None = None
) -> Iterable[np.ndarray]:
    """The maps at each row of z, with progress."""
    return tracked(ensemble.decode(z_mq, decoder, box), len(z_mq), "Decoding", "maps")


def _measured(ensemble: Ensemble, z_mq: np.ndarray, decoder: str) -> Iterator[tuple[np.ndarray, float | None]]:
    """The maps, and the resolution of their half maps where the decoder makes any."""
    if decoder != "kernel":
        return ((map_zyx, None) for map_zyx in decoded(ensemble, z_mq, decoder))
    states = tracked(ensemble.kernel.states(z_mq), len(z_mq), "Decoding", "maps")
    return ((state.map_zyx, state.resolution_A(ensemble.pixel_A)) for state in states)


def write_series(
    folder: Path, name: str, ensemble: Ensemble, z_mq: np.ndarray, camera: Camera, decoder: str = "model"
) -> Series:
    """`name`/map_001.mrc … and `name`.cxc in `folder`; one map is in memory at a time.

    The pictures are taken along the axis on which the projections differ most.
    """
    files = [f"{name}/{map_name(number)}" for number in range(1, len(z_mq) + 1)]
    projections: dict[str, list[np.ndarray]] = {axis: [] for axis in VIEWS}
    resolutions = []
    for file, (map_zyx, resolution_A) in zip(files, _measured(ensemble, z_mq, decoder), strict=True):
        resolutions.append(resolution_A)
        write_map(folder / file, map_zyx, ensemble.pixel_A)
        for axis, seen in projections.items():
            seen.append(camera.seen(map_zyx, axis).sum(0))
    axis = max(VIEWS, key=lambda axis: float(np.var(projections[axis], axis=0).sum()))
    pictures = tuple(camera.picture(read_map(folder / file)[0], axis) for file in files)
    (folder / f"{name}.cxc").write_text(chimerax_script(files, camera.level, playing=name != "kmeans"))
    around = surroundings(ensemble.z_nq, z_mq)
    return Series(name, z_mq, pictures, axis, ensemble.pixel_A, tuple(resolutions), around)


def write_differences(folder: Path, series: Series, mask_zyx: np.ndarray | float, pixel_A: float) -> None:
    """`name`/difference_001.mrc …: every map minus the mean of the series, times a mask; two maps are in memory."""
    files = [folder / series.name / map_name(number) for number in range(1, len(series.z_mq) + 1)]
    mean_zyx = sum(read_map(file)[0].astype(float) for file in files) / len(files)
    for file in files:
        difference_zyx = ((read_map(file)[0] - mean_zyx) * mask_zyx).astype(np.float32)
        write_map(file.with_name(file.name.replace("map", "difference")), difference_zyx, pixel_A)


def chimerax_script(files: Sequence[str], level: float, playing: bool) -> str:
    """Commands that open maps as one series with a slider, at one level; `playing` also runs back and forth.

    Files are relative: ChimeraX runs a script in the script's own folder.
    Source: ChimeraX User Guide, commands open, volume, vseries.
    """
    series = len(files) > 1
    lines = [
        f"open {' '.join(files)}{' vseries true' if series else ''}",
        f"volume #1 style surface level {level:.6g} step 1 color lightsteelblue",
        "set bgColor white",
        "lighting soft",
        "graphics silhouettes true",
        "view",
    ]
    if series:
        lines.append("vseries slider #1")
    if series and playing:
        lines.append(f"vseries play #1 loop true direction oscillate maxFrameRate 8 cacheFrames {len(files)}")
    return "\n".join(lines) + "\n"
