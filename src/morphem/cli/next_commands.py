"""What to type, or which job to start, in the program that a table of particles was written for."""

import shlex
from pathlib import Path

from morphem.config import to_plain, to_words
from morphem.data.dataset import Source

MASKED = 0.8
"""RELION's circular mask, as a part of the box."""


def next_commands(
    table: Path,
    pixel_A: float,
    box: int,
    *,
    start: Path | None = None,
    reference: Path | None = None,
    ctf: bool = True,
    poses: bool = True,
) -> str:
    """The next commands for a .star, a .cs or a folder of cryoDRGN's files, whose image names begin in `start`.

    `reference` is a map of these particles, in their pixel size; RELION makes one where there is none. Without poses
    what follows is 2D classification.
    """
    if table.is_dir():
        return _cryodrgn(table, start)
    if table.suffix == ".cs":
        return _cryosparc_result_group(table) if table.with_suffix(".csg").exists() else _as_star(table)
    relion = (
        _relion(table, pixel_A, box, start, reference, ctf) if poses else _relion_2d(table, pixel_A, box, start, ctf)
    )
    return relion + "\n" + _cryosparc_stack(table, start)


def fit_command(source: Source) -> str:
    """The fit of a source, with every option that it was given."""
    given = {name: value for name, value in to_plain(source).items() if value is not False}
    words = ["morphem", "fit", "vae", given.pop("particles"), *to_words(given, {})]
    return _shown("Next in morphem:", [shlex.join([*words, "-o", "RUN"])])


def _as_star(table: Path) -> str:
    line = shlex.join(["morphem", "export", str(table), "-o", str(table.with_suffix(".star"))])
    return _shown("Next in RELION or cryoSPARC: make a .star, which both import; this prints how:", [line])


def _relion_2d(table: Path, pixel_A: float, box: int, start: Path | None, ctf: bool) -> str:
    folder, where = f"Class2D/{shlex.quote(table.stem)}", _where(start)
    lines = [
        f"mkdir -p {folder}",
        f"relion_refine --i {_quoted(table)} --o {folder}/run --K 50 --iter 25{' --ctf' if ctf else ''} \\",
        f"  --particle_diameter {MASKED * box * pixel_A:.0f} --flatten_solvent --zero_mask --norm --scale \\",
        "  --pad 2 --j 2",
    ]
    return _shown(f"Next in RELION, {where}:", lines)


def _where(start: Path | None) -> str:
    return "in the folder that the image names start from" if start is None else f"in {_quoted(start)}"


def _relion(table: Path, pixel_A: float, box: int, start: Path | None, reference: Path | None, ctf: bool) -> str:
    """Half-sets, as auto-refinement has them, need three processes: one leads, one each works on a half."""
    folder, star = f"Refine3D/{shlex.quote(table.stem)}", _quoted(table)
    where = _where(start)
    lines = [f"mkdir -p {folder}"]
    with_ctf = " --ctf" if ctf else ""
    if reference is None:
        lines.append(f"relion_reconstruct --i {star} --o {folder}/start.mrc{with_ctf}")
    started = f"{folder}/start.mrc" if reference is None else _quoted(reference)
    lines += [
        f"mpirun -n 3 relion_refine_mpi --i {star} --o {folder}/run --ref {started} \\",
        f"  --auto_refine --split_random_halves{with_ctf} --ini_high {max(30, 4 * pixel_A):.0f} \\",
        f"  --particle_diameter {MASKED * box * pixel_A:.0f} --flatten_solvent --zero_mask --norm --scale \\",
        "  --low_resol_join_halves 40 --pad 2 --j 2",
    ]
    return _shown(f"Next in RELION, {where}:", lines)


def _cryosparc_stack(table: Path, start: Path | None) -> str:
    data = "the folder that the image names start from" if start is None else start.resolve()
    lines = [f"Particle meta path: {table.resolve()}", f"Particle data path: {data}"]
    return _shown("Next in cryoSPARC, job Import Particle Stack:", lines)


def _cryosparc_result_group(table: Path) -> str:
    lines = [f"Path to the .csg file: {table.with_suffix('.csg').resolve()}"]
    return _shown("Next in cryoSPARC, in the project that the images are of, job Import Result Group:", lines)


def _cryodrgn(folder: Path, start: Path | None) -> str:
    datadir = "" if start is None else f" --datadir {_quoted(start)}"
    ctf = f" --ctf {_quoted(folder / 'ctf.pkl')}" if (folder / "ctf.pkl").exists() else ""
    files = f"{_quoted(folder / 'particles.star')}{datadir} --poses {_quoted(folder / 'poses.pkl')}{ctf}"
    lines = [
        f"cryodrgn backproject_voxel {files} -o {_quoted(folder)}_backprojected",
        f"cryodrgn train_vae {files} --zdim 8 -n 50 -o {_quoted(folder)}_trained",
    ]
    return _shown("Next in cryoDRGN:", lines)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path.resolve()))


def _shown(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)])
