"""Every command but `fit`: flags from the dataclasses of what it calls, results on stdout, progress on stderr."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number

from morphem.analysis import Analysis
from morphem.cli.fit import COMPUTE, fit_method, flat
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate as write_simulation
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.io import npy
from morphem.io.files import refuse_file
from morphem.io.reading import reading
from morphem.run import Compute, Output, progress

OVERWRITE = Annotated[bool, Parameter(negative="")]


def simulate(
    folder: Path,
    *,
    config: Annotated[Simulation, flat("Simulation", 1)] = Simulation(),  # noqa: B008
    overwrite: OVERWRITE = False,
) -> None:
    """Make particle images of a molecule that moves, with the truth beside them.

    Parameters
    ----------
    folder
        Folder to write: particles.star, particles.mrcs, and the true maps, labels and poses.
    overwrite
        Replace a simulation that the folder holds.
    """
    with progress(config.images, "Simulating") as bar:
        write_simulation(folder, config, bar.advance, overwrite)
    print(f"Finished: {folder / 'particles.star'}\nNext: morphem fit vae {folder / 'particles.star'} -o RUN")


def decode(
    run: Path,
    *,
    output: Annotated[Path, Parameter(alias=["-o", "--outdir"])],
    z: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    z_file: Path | None = None,
    image: tuple[int, ...] = (),
    path: tuple[int, int] | None = None,
    frames: int = 10,
    map_box: int | None = None,
    decoder: Literal["model"] = "model",
    overwrite: OVERWRITE = False,
) -> None:
    """Maps from latent coordinates, images, or a path between two images.

    Parameters
    ----------
    run
        Folder of a finished run.
    output
        Folder to write: map_001.mrc, …, a ChimeraX script, and z.csv.
    z
        Latent coordinates, as in "0.1,-0.2".
    z_file
        Text file with one row of latent coordinates a map, or a .npy.
    image
        Images at whose own z to decode, by row in the particles' table, from 0.
    path
        Two images, by row from 0: maps along the straight line between their z.
    frames
        How many maps along a path.
    map_box
        Box of the maps in pixels, Fourier-cropped with densities kept; the run's own by default.
    decoder
        What turns z into a map: the run's own model.
    overwrite
        Replace maps that the folder holds.
    """
    from morphem.analysis.maps import decode_series

    refuse_file(output)
    ensemble = Ensemble.open(run)
    chosen = [name for name, given in (("--z", z), ("--z-file", z_file), ("--image", image), ("--path", path)) if given]
    if len(chosen) != 1:
        raise InputError(
            f"decode: {' and '.join(chosen) or 'nothing'} given; expected one of --z, --z-file, --image, --path"
        )
    if z is not None or z_file is not None:
        z_mq = _numbers(z, z_file)
    elif image:
        z_mq = _at_images(ensemble, image)
    else:
        assert path is not None
        z_mq = _line(ensemble, path, frames)
    decode_series(ensemble, z_mq, output, decoder, overwrite, map_box)
    print(f"Finished: {output} ({len(z_mq)} maps)\nNext: chimerax {output}/maps.cxc")


def _numbers(z: str | None, z_file: Path | None) -> np.ndarray:
    """Rows of latent coordinates, from the command line or a file."""
    try:
        z_mq = np.array(_rows(z, z_file), dtype=float)
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


def _at_images(ensemble: Ensemble, rows: tuple[int, ...]) -> np.ndarray:
    for row in rows:
        if not 0 <= row < len(ensemble):
            raise InputError(f"image {row}: the run has images 0 to {len(ensemble) - 1}")
    return ensemble.z_nq[list(rows)]


def _line(ensemble: Ensemble, ends: tuple[int, int], frames: int) -> np.ndarray:
    """z on the straight line between two images."""
    if frames < 2:
        raise InputError(f"--frames {frames}: expected at least 2")
    start_q, stop_q = _at_images(ensemble, ends)
    return np.linspace(start_q, stop_q, frames)


def analyze(
    run: Path,
    *,
    settings: Annotated[Analysis, flat("Analysis", 1)] = Analysis(),  # noqa: B008
    compute: Annotated[Compute, COMPUTE] = Compute(),  # noqa: B008
) -> None:
    """PCA, UMAP, k-means density maps and traversals of a run, plots and a report.

    Parameters
    ----------
    run
        Folder of a finished run.
    """
    from morphem.analysis import analyze as write_analysis

    ensemble = Ensemble.open(run)
    ensemble.volume.to(compute.apply())
    print(f"Finished: {write_analysis(ensemble, settings, compute.seed)}")


def evaluate(
    run: Path,
    *,
    truth: Path,
    decoder: Literal["model"] = "model",
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**32))] = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Score a run against the truth it was simulated from.

    Parameters
    ----------
    run
        Folder of a finished run.
    truth
        Folder that `morphem simulate` wrote, or one laid out like it.
    decoder
        What turns z into a map: the run's own model.
    seed
        Of the clustering and the halves of images.
    as_json
        Print one line of JSON.
    """
    from morphem.evaluation.truth import evaluate as score

    scores = score(Ensemble.open(run), truth, decoder, seed)
    if as_json:
        print(json.dumps(scores))
        return
    for name, value in scores.items():
        print(
            f"{name:<34}{f'{value:.4f}' if isinstance(value, float) else 'not available' if value is None else value}"
        )


def demo(
    *,
    output: Annotated[Path, Parameter(alias=["-o", "--outdir"])] = Path("demo"),
    overwrite: OVERWRITE = False,
    compute: Annotated[Compute, COMPUTE] = Compute(),  # noqa: B008
) -> None:
    """Simulate a moving molecule, fit it, analyse it and write a report: the whole program in two minutes.

    Parameters
    ----------
    output
        Folder to write: simulation/ and run/.
    overwrite
        Replace an earlier demo.
    """
    from morphem.analysis import analyze as write_analysis
    from morphem.data.dataset import Source
    from morphem.methods import vae

    simulate(output / "simulation", config=replace(DEMO, seed=compute.seed), overwrite=overwrite)
    source = Source(output / "simulation" / "particles.star")
    settings = vae.Config(latent_dim=6, epochs=8, width=128)
    ensemble = fit_method("vae", source, settings, Output(output / "run", overwrite=overwrite), compute)
    report = write_analysis(ensemble, Analysis(clusters=10, axes=2), compute.seed)
    evaluate(ensemble.folder, truth=output / "simulation")
    print(f"\nOpen this in a browser: {report}")


DEMO = Simulation(kind="hinge", images=2500, box=48, pixel_size=4.0, snr=1.0)
