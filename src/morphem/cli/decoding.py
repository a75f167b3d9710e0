"""The command `decode`: maps of a run, or of another program's latents, at chosen states."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter

from morphem.cli.fit import COMPUTE, flat
from morphem.data.dataset import Source
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.io import npy
from morphem.io.files import refuse_file
from morphem.io.reading import reading
from morphem.run import NOTICE, Compute, say

LARGEST = 1e6
"""Coordinates beyond are no latents."""


def decode(
    run: Path | None = None,
    *,
    output: Annotated[Path, Parameter(alias=["-o", "--outdir"])],
    z: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    z_file: Path | None = None,
    image: tuple[int, ...] = (),
    path: tuple[int, int] | None = None,
    along: Literal["direct", "graph", "density"] | None = None,
    mode: Literal["simple", "cluster", "intermediates"] | None = None,
    component: int | None = None,
    frames: int | None = None,
    lowpass: float | None = None,
    map_box: int | None = None,
    decoder: Literal["model", "kernel"] | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    latents: Path | None = None,
    source: Annotated[Source | None, flat("Images of --latents", 1)] = None,
    compute: Annotated[Compute, COMPUTE] = Compute(),  # noqa: B008
) -> None:
    """Maps from latent coordinates, images, a path between two images, or along a component.

    Parameters
    ----------
    run
        Folder of a finished run; without it give --latents and --particles.
    output
        Folder to write: map_001.mrc, …, a ChimeraX script, and z.csv; by the kernel also half maps, local
        resolution, and states.csv with the effective number of images and the bandwidth of each band of shells.
    z
        Latent coordinates, as in "0.1,-0.2".
    z_file
        Text file with one row of latent coordinates a map, or a .npy.
    image
        Images at whose own z to decode, by row in the particles' table, from 0.
    path
        Two images, by row from 0: maps at equal steps between their z; states.csv says which lie where no images are.
    along
        Where a path runs: on the straight line, which is the default, over near images by the shortest way (graph), or
        so that it keeps to where images are dense (density).
    mode
        Show a run as 3D variability display does: along a component by the model (simple), or as back-projections of
        clusters of images (cluster) or of images under overlapping windows along a component (intermediates), with
        half maps.
    component
        Which component of z, from 1, which is the default.
    frames
        How many maps; 10 along a path, 20 in a mode.
    lowpass
        Resolution in Å beyond which maps of a mode are cut off.
    map_box
        Box of the maps in pixels, Fourier-cropped with densities kept; the run's own by default.
    decoder
        What turns z into a map: the run's own model, which is the default, or local regression on the images, which is
        all that another program's latents have.
    overwrite
        Replace maps that the folder holds.
    latents
        Another program's latents, .pkl, .npy or .parquet, one row for each image of --particles.
    """
    refuse_file(output)
    _refuse_both(run, latents, source, decoder)
    given = _only_one({"--z": z, "--z-file": z_file, "--image": image, "--path": path, "--mode": mode})
    _refuse_astray(mode, {"--map-box": map_box, "--decoder": decoder}, {"--lowpass": lowpass, "--component": component})
    if component is not None and mode == "cluster":
        raise InputError(f"--component {component}: has no meaning with --mode cluster; leave it out")
    if frames is not None and given not in ("--path", "--mode"):
        raise InputError(f"--frames {frames}: has no meaning with {given}; leave it out")
    if along is not None and path is None:
        raise InputError(f"--along {along}: has no meaning with {given}; leave it out")
    device = compute.apply()
    if mode is not None:
        component = 1 if component is None else component
        _display(run, mode, output, component, 20 if frames is None else frames, lowpass, overwrite, device)
        return
    frames = 10 if frames is None else frames
    numbers_mq = _numbers(z, z_file) if given in ("--z", "--z-file") else None
    if run is not None:
        from morphem.analysis.decoding import decode_series

        ensemble = _opened(run, device)
        z_mq = _at_images(ensemble.z_nq, image, path, along, frames) if numbers_mq is None else numbers_mq
        known = _near(ensemble.z_nq, z_mq, along) if path else ()
        decode_series(ensemble, z_mq, output, decoder or "model", overwrite, map_box, known)
    else:
        from morphem.analysis.decoding import decode_others, refuse_maps
        from morphem.inference.kernel import for_latents

        assert latents is not None and source is not None
        refuse_maps(output, overwrite)
        kernel, consensus = for_latents(latents, source, device, compute.seed)
        z_mq = _at_images(kernel.latents.z_nq, image, path, along, frames) if numbers_mq is None else numbers_mq
        known = _near(kernel.latents.z_nq, z_mq, along) if path else ()
        decode_others(kernel, consensus, z_mq, output, overwrite, map_box, known)
    print(f"Finished: {output} ({len(z_mq)} maps)\nNext: chimerax {output}/maps.cxc")


def _opened(run: Path, device: str) -> Ensemble:
    """A run whose volume is on a device."""
    ensemble = Ensemble.open(run)
    ensemble.volume.to(device)
    return ensemble


def _refuse_both(run: Path | None, latents: Path | None, source: Source | None, decoder: str | None) -> None:
    """A run has its own latents and images; another program's need both options, and have no model."""
    if run is not None and (latents is not None or source is not None):
        option = "--particles" if latents is None else "--latents"
        raise InputError(f"{run} {option}: a run has its own latents and images; give a run, or --latents --particles")
    if run is None and (latents is None or source is None):
        found = "neither a run nor --latents" if latents is None else f"--latents {latents} without --particles"
        raise InputError(f"decode: {found} given; expected a run's folder, or --latents and --particles")
    if run is None and decoder == "model":
        raise InputError("--decoder model: another program's latents come without its model; leave it out")


def _refuse_astray(mode: str | None, without: dict[str, object], within: dict[str, object]) -> None:
    """Options that would be passed over: some have a meaning in a mode alone, some in none."""
    for name, value in (within if mode is None else without).items():
        if value is not None:
            where = "without --mode" if mode is None else f"with --mode {mode}"
            raise InputError(f"{name} {value}: has no meaning {where}; leave it out")


def _display(
    run: Path | None,
    mode: Literal["simple", "cluster", "intermediates"],
    output: Path,
    component: int,
    frames: int,
    lowpass: float | None,
    overwrite: bool,
    device: str,
) -> None:
    from morphem.analysis.display import display

    if run is None:
        raise InputError(f"--mode {mode}: another program's latents have no components; give a run")
    if lowpass is not None and not lowpass > 0:
        raise InputError(f"--lowpass {lowpass:g}: expected a resolution in Å")
    count = display(_opened(run, device), mode, output, component, frames, lowpass, overwrite)
    print(f"Finished: {output} ({count} maps)\nNext: chimerax {output}/maps.cxc")


def _only_one(options: dict[str, object]) -> str:
    """The name of the one option that is given."""
    chosen = [name for name, value in options.items() if value not in (None, ())]
    if len(chosen) != 1:
        raise InputError(f"decode: {' and '.join(chosen) or 'nothing'} given; expected one of {', '.join(options)}")
    return chosen[0]


def _numbers(z: str | None, z_file: Path | None) -> np.ndarray:
    """Rows of latent coordinates, from the command line or a file."""
    try:
        z_mq = np.array(_rows(z, z_file), dtype=float)
        z_mq = np.where(np.abs(z_mq) < LARGEST, z_mq, np.nan)
    except ValueError:
        z_mq = np.empty(0)
    if z_mq.ndim != 2 or not z_mq.size or not np.isfinite(z_mq).all():
        where = f'--z "{z}"' if z_file is None else z_file
        raise InputError(f"{where}: no rows of equally many numbers found, expected latent coordinates, a row a map")
    return z_mq


def _rows(z: str | None, z_file: Path | None) -> np.ndarray | list[list[float]]:
    if z_file is None:
        lines = [str(z)]
    elif z_file.suffix == ".npy":
        return np.atleast_2d(npy.read(z_file, "latent coordinates"))
    else:
        with reading(z_file, "latent coordinates"):
            lines = z_file.read_text().splitlines()
    rows = [line.partition("#")[0].replace(",", " ").split() for line in lines]
    return [[float(number) for number in row] for row in rows if row]


def _at_images(
    z_nq: np.ndarray, rows: tuple[int, ...], ends: tuple[int, int] | None, along: str | None, frames: int
) -> np.ndarray:
    """z of some images, or on a path between two."""
    for row in rows or ends or ():
        if not 0 <= row < len(z_nq):
            raise InputError(f"image {row}: the run has images 0 to {len(z_nq) - 1}")
    if ends is None:
        return z_nq[list(rows)]
    if frames < 2:
        raise InputError(f"--frames {frames}: expected at least 2")
    from morphem.analysis.paths import path

    return path(z_nq, ends, frames, along or "direct")


def _near(z_nq: np.ndarray, z_mq: np.ndarray, along: str | None) -> list[dict[str, float]]:
    """How near to images each frame of a path is, with a word of those that are far."""
    from morphem.analysis.paths import surroundings

    around = surroundings(z_nq, z_mq)
    if around.warning:
        say(NOTICE + around.warning + ("; --along graph follows the images" if along in (None, "direct") else ""))
    return around.facts
