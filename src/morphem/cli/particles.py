"""Commands on particle tables: what is in them, smaller images, subsets, files for other programs."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter

from morphem.cli.fit import IMAGES
from morphem.cli.next_commands import fit_command, next_commands
from morphem.data.dataset import Source
from morphem.data.export import Extras, kind_of, of_table, start_of_names, write
from morphem.data.particles import Particles
from morphem.data.tables import open_table
from morphem.ensemble import Ensemble
from morphem.errors import InputError
from morphem.run import progress

FLAG = Annotated[bool, Parameter(negative="")]


def inspect(
    source: Annotated[Source, IMAGES],
    *,
    all_images: FLAG = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """What a particle table and its images hold, and what is wrong with them.

    Errors are what a fit would refuse; where there are any the exit code is 2.

    Parameters
    ----------
    all_images
        Look at all images, not at a thousand spread over the table.
    as_json
        Print one line of JSON: what it holds, and the findings with severity, what, where, remedy.
    """
    from morphem.cli import inspected
    from morphem.data.inspection import inspect as inspect_source

    inspection = inspect_source(source, all_images)
    if as_json:
        print(inspected.as_json(inspection))
    else:
        inspected.show(inspection)
    if count := inspection.errors:
        errors = "1 error" if count == 1 else f"{count} errors"
        raise InputError(f"{source.particles}: {errors}, a fit would refuse this; see to what is listed")
    if not as_json:
        print()
        _print_next(source, source.open(), source.datadir)


def downsample(
    particles: Path,
    *,
    box: Annotated[int, Parameter(alias="-D")],
    output: Annotated[Path, Parameter(alias="-o")],
    datadir: Path | None = None,
    poses: Path | None = None,
    ctf: Path | None = None,
    passthrough: Path | None = None,
    ind: Path | None = None,
    pixel_size: Annotated[float | None, Parameter(alias=["--apix", "--Apix"])] = None,
    overwrite: FLAG = False,
) -> None:
    """Fourier-crop particle images to a smaller box.

    Grey values and shifts in Å stay; image names start from the current folder where the output lies below it.

    Parameters
    ----------
    particles
        A .star, a .cs, a stack or a .txt that lists stacks.
    box
        Box side of the new images in pixels, even.
    output
        Table to write, a .star, or a .cs where a .cs came in; the images go beside it, under its name with .mrcs.
    datadir
        Folder that the image names start from; otherwise the table's own folder and its parents.
    poses
        Another program's pose.pkl.
    ctf
        Another program's ctf.pkl.
    passthrough
        The passthrough .cs that goes with a .cs.
    ind
        A .pkl, .npy or .txt of row numbers to keep, from 0.
    pixel_size
        Å per pixel, where the table does not say.
    overwrite
        Replace an earlier output.
    """
    from morphem.data import downsampling

    names = {"datadir": datadir, "poses": poses, "passthrough": passthrough, "ind": ind, "pixel_A": pixel_size}
    large = downsampling.read(particles, ctf, **names)
    with progress(len(large), "Downsampling") as bar:
        downsampling.downsample(large, box, output, overwrite, bar.advance)
    pixel_A = float(large.pixel_A_n[0]) * large.box / box
    print(f"Finished: {output} ({len(large):,} images of {box} pixels, {pixel_A:.5g} Å each)")
    small = replace(large, box=box, pixel_A_n=large.pixel_A_n * large.box / box)
    _print_next(Source(output, no_ctf=large.ctf is None), small, Path())


def _print_next(source: Source, particles: Particles, start: Path | None) -> None:
    """What may follow with a table as it is: in RELION and cryoSPARC, and here where it has poses."""
    table, has_poses = source.particles, particles.has_poses
    if table.suffix in (".star", ".cs"):
        start = start or start_of_names(open_table(table, None), None)
        pixel_A = float(np.median(particles.pixel_A_n))
        has_ctf = particles.ctf is not None
        print(next_commands(table, pixel_A, particles.box, start=start, ctf=has_ctf, poses=has_poses))
    if has_poses:
        print(fit_command(source))


def export(
    source: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    select: str | None = None,
    where: str | None = None,
    ind: Path | None = None,
    file_format: Annotated[Literal["star", "cs", "cryodrgn"] | None, Parameter(name="--format")] = None,
    poses: FLAG = False,
    latents: FLAG = False,
    datadir: Path | None = None,
    passthrough: Path | None = None,
    overwrite: FLAG = False,
) -> None:
    """Particles of chosen clusters, regions or rows, poses, and files for other programs.

    Rows of the table that the run was fitted to are dropped; every column and field of the others stays as it was.

    Parameters
    ----------
    source
        Folder of a finished run; or a .star or .cs.
    output
        File to write, which ends in .star or .cs; with --format cryodrgn a folder.
    select
        Clusters of `morphem analyze` to keep, by label, as in 3,7. Label n is that of map n.
    where
        Comparisons that hold for the images to keep, as in "pc1 > 0.5 and umap2 < 3". Columns are those of the run's
        latents.parquet, of what `morphem analyze` wrote, and of validation/particles.parquet where there is one.
    ind
        A .pkl, .npy or .txt of row numbers to keep, from 0: of the run's images, or of the table's rows.
    file_format
        What to write; by default what the end of the output's name says.
    poses
        Write the run's poses in place of the table's. Files for cryoDRGN hold them always.
    latents
        Add columns morphemZ0, … with the latent coordinates. Files for cryoDRGN hold them always.
    datadir
        Folder that the image names start from, where it is not the one that the run was given or the table's own.
    passthrough
        The passthrough .cs that goes with a .cs. A run knows its own.
    overwrite
        Replace an earlier export.
    """
    from morphem.analysis.selection import of_run

    kind, extras = kind_of(output, file_format), Extras(poses, latents)
    given = [name for name, value in {"--select": select, "--where": where, "--ind": ind}.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' '.join(given)}: each says which images to keep; give one of them")
    if kind == "cryodrgn" and (poses or latents):
        raise InputError("--format cryodrgn: holds poses and latents always; leave out --poses and --latents")
    if source.is_dir():
        _refuse({"--passthrough": passthrough}, f"{source} is a run, which knows its own")
        selection = of_run(Ensemble.open(source), kind, extras, _labels(select), ind, where, datadir)
    else:
        _refuse(
            {"--select": select, "--where": where, "--poses": poses, "--latents": latents},
            f"{source} is no run's folder",
        )
        selection = of_table(source, kind, ind, datadir, passthrough)
    write(selection, kind, output, extras, overwrite)
    print(f"Finished: {output} ({len(selection.row_m):,} of {len(selection.table):,} particles)")
    if selection.scale:
        start, reference, ctf = selection.start, selection.reference, selection.has_ctf
        print(next_commands(output, *selection.scale, start=start, reference=reference, ctf=ctf))


def _refuse(options: dict[str, object], reason: str) -> None:
    """Errors: InputError where any of these options is given."""
    given = next((name for name, value in options.items() if value), None)
    if given:
        raise InputError(f"{given}: {reason}; leave it out")


def _labels(select: str | None) -> list[int] | None:
    """The numbers of "3,7". Errors: InputError for anything else."""
    if select is None:
        return None
    words = select.replace(",", " ").split()
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(f'--select "{select}": expected labels of clusters, as in 3,7; give whole numbers from 1')
    return [int(word) for word in words]
