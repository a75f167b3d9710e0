"""Subsets of particle tables for other programs: rows are dropped, and nothing else changes unless asked for.

Axes: n rows of the table, m rows kept, q latent.
"""

import re
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import yaml

from morphem.data import cryodrgn, tables
from morphem.data.cryosparc import POSE, CsTable
from morphem.data.particles import Particles
from morphem.data.relion import StarTable
from morphem.errors import InputError
from morphem.io import cs, pickles
from morphem.io.files import refuse_file, replacing, replacing_folder
from morphem.physics.ctf import CtfParameters
from morphem.run import NOTICE, say

KINDS = {".star": "star", ".cs": "cs"}
FOLDER = ("particles.star", "poses.pkl", "ctf.pkl", "ind.pkl", "z.pkl", "labels.pkl")
"""What a folder for cryoDRGN holds."""
ONE_OF_MANY = re.compile(r"(\w+)_(?:class|mode)_\d+")
"""cryoSPARC's slots that come once for each class or component."""


@dataclass(frozen=True)
class Extras:
    """What is to differ from the rows as they came in."""

    poses: bool = False
    """The run's poses take the place of the table's."""
    latents: bool = False
    """The run's latent coordinates are added."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Rows of a particle table, in its order, with what is known of them beside it."""

    table: tables.Table
    row_m: np.ndarray
    read: tuple[Path, ...]
    """The files that the rows and all the rest come from."""
    scale: tuple[float, int] | None
    """Å per pixel and box, where they are known."""
    start: Path | None
    """The folder that the image names start from, where it is known."""
    passthrough: Path | None = None
    """Of a .cs."""
    particles: Particles | None = None
    """The same rows in physical units; a run's, with its poses."""
    z_mq: np.ndarray | None = None
    variance_mq: np.ndarray | None = None
    """The diagonal of the posterior covariance of z."""
    label_m: np.ndarray | None = None
    added: tuple[str, ...] = ()
    """Columns of the table that a run added, which are dropped."""
    reference: Path | None = None
    """A map of the particles."""

    @property
    def has_ctf(self) -> bool:
        return self.table.has(self.table.CTF["defocus_u_A_n"][0])


def kind_of(output: Path, asked: str | None) -> str:
    """star, cs or cryodrgn. Errors: InputError where the output's name does not say, or contradicts what is asked."""
    told = KINDS.get(output.suffix)
    if asked == "cryodrgn" and told is None:
        return asked
    if told is None or asked not in (None, told):
        wanted = {None: "an end in .star or .cs, or --format cryodrgn", "cryodrgn": "the name of a folder"}
        raise InputError(
            f"{output}: expected {wanted.get(asked, f'an end in .{asked}')}; give another name or --format"
        )
    return told


def of_table(path: Path, kind: str, ind: Path | None, datadir: Path | None, passthrough: Path | None) -> Selection:
    """The rows that `ind` numbers, or all, of a table. Errors: InputError."""
    if path.suffix not in KINDS:
        raise InputError(f"{path}: is neither the folder of a run nor a .star or .cs; give one of them")
    refuse_cs_of_others(path, kind)
    table = tables.any_table(path, passthrough)
    row_m = np.arange(len(table)) if ind is None else np.unique(cryodrgn.read_index(ind, len(table)))
    particles = None
    if KINDS[path.suffix] != kind:
        posed = kind == "cryodrgn"
        particles = Particles.read(path, datadir=datadir, passthrough=passthrough, require_poses=posed).take(row_m)
    read = (path, passthrough) if passthrough else (path,)
    scale, start = scale_of(table, datadir), start_of_names(table, datadir)
    return Selection(table, row_m, read, scale, start, passthrough if kind == "cs" else None, particles)


def refuse_cs_of_others(table: Path, kind: str) -> None:
    """Errors: InputError where a .cs is asked for of particles that came from elsewhere."""
    if kind == "cs" and table.suffix != ".cs":
        raise InputError(f"{table}: has none of cryoSPARC's fields for a .cs; give an output that ends in .star")


def _outputs(selection: Selection, kind: str, output: Path) -> list[Path]:
    """The files, or the one folder, to write."""
    if kind != "cs":
        return [output]
    beside = [passthrough_beside(output)] if selection.passthrough else []
    return [output, *beside, output.with_suffix(".csg")]


def passthrough_beside(output: Path) -> Path:
    """Where the passthrough file of a .cs goes."""
    return output.with_name(f"{output.stem}_passthrough.cs")


def _refuse_outputs(paths: list[Path], read: tuple[Path, ...], overwrite: bool) -> None:
    """Errors: InputError where an output was read from, is there already, or would take the place of other things."""
    refuse_file(paths[0].absolute().parent)
    for path in paths:
        if path.resolve() in [one.resolve() for one in read]:
            raise InputError(f"{path}: is what is to be exported; give another name")
        if path.is_file() and path.suffix not in (*KINDS, ".csg"):
            raise InputError(f"{path}: is a file; give a folder")
        if path.is_dir() and (foreign := {one.name for one in path.iterdir()} - set(FOLDER)):
            raise InputError(f"{path}: a folder that holds {min(foreign)}, which no export wrote; give another name")
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists already; give another name, or --overwrite to replace it")


def write(selection: Selection, kind: str, output: Path, extras: Extras, overwrite: bool = False) -> None:
    """Write all files of the rows, or none.

    Errors: InputError where an output is there already or was read from; RunError when the disk is full.
    """
    _refuse_outputs(_outputs(selection, kind, output), selection.read, overwrite)
    if kind == "cryodrgn":
        _write_folder(selection, output)
    elif kind == "cs":
        _write_cs(selection, output, extras)
    else:
        _write_star(selection, output, extras)


def _write_star(selection: Selection, output: Path, extras: Extras) -> None:
    """The table's own text; for rows of a .cs, a RELION table made from what is known."""
    if not isinstance(selection.table, StarTable):
        assert selection.particles is not None
        selection.particles.write(output)
        return
    table = selection.table.take(selection.row_m).without_columns(selection.added)
    latents = {f"morphemZ{i}": column for i, column in enumerate(_latents(selection, extras).T)}
    table.with_columns(_poses(selection, table, extras) | latents).write(output)


def _poses(selection: Selection, table: tables.Table, extras: Extras) -> dict[str, np.ndarray]:
    if not extras.poses:
        return {}
    assert selection.particles is not None
    run = selection.particles
    return table.pose_columns(run.rotation_n33, run.shift_A_n2, run.pixel_A_n)


def _latents(selection: Selection, extras: Extras) -> np.ndarray:
    if not extras.latents:
        return np.empty((len(selection.row_m), 0), np.float32)
    assert selection.z_mq is not None
    return selection.z_mq


def _write_cs(selection: Selection, output: Path, extras: Extras) -> None:
    """The .cs, the passthrough's rows of the same uids, and a .csg that says which field is in which of them."""
    parts = _cs_parts(selection, output)
    posed = next((path for path, table in parts.items() if POSE in _names(table)), output)
    parts[posed] = cs.with_fields(parts[posed], _poses(selection, CsTable(posed, parts[posed]), extras))
    if extras.latents:
        parts[output] = cs.with_fields(parts[output], {"morphem/z": _latents(selection, extras)})
    with ExitStack() as whole:
        group = whole.enter_context(replacing(output.with_suffix(".csg")))
        group.write_text(yaml.safe_dump(_result_group(parts), sort_keys=False))
        for path, table in parts.items():
            cs.write(whole.enter_context(replacing(path)), table)


def _cs_parts(selection: Selection, output: Path) -> dict[Path, np.ndarray]:
    path, passthrough = selection.table.path, selection.passthrough
    parts = {output: cs.read(path)[selection.row_m]}
    if passthrough:
        other = cs.read(passthrough)
        parts[passthrough_beside(output)] = other[cs.rows_of(parts[output], other, path, passthrough)]
    return parts


def _names(table: np.ndarray) -> tuple[str, ...]:
    return table.dtype.names or ()


def _result_group(parts: dict[Path, np.ndarray]) -> dict:
    """What cryoSPARC's job Import Result Group reads: the metafile of each slot, the part of a field before its /."""
    results = {}
    for path, table in reversed(parts.items()):
        for slot in sorted({name.partition("/")[0] for name in _names(table) if "/" in name} - {"morphem"}):
            results[slot] = {"metafile": f">{path.name}", "num_items": len(table), "type": f"particle.{_kind(slot)}"}
    group = {"description": "A subset", "name": "particles", "title": "Selected particles", "type": "particle"}
    return {"created": str(datetime.now()), "group": group, "results": results, "version": "v4.0.0"}


def _kind(slot: str) -> str:
    one = ONE_OF_MANY.fullmatch(slot)
    return slot if one is None else one[1].replace("alignments", "alignments3D")


def _write_folder(selection: Selection, folder: Path) -> None:
    """cryoDRGN's pickles and a table that names the images."""
    particles = selection.particles
    assert particles is not None
    with replacing_folder(folder) as aside:
        particles.write(aside / "particles.star")
        width_A_m1 = particles.box * particles.pixel_A_n[:, None]
        cryodrgn.write_poses(aside / "poses.pkl", particles.rotation_n33, particles.shift_A_n2 / width_A_m1)
        if particles.ctf is not None:
            _say_what_ctf_lacks(particles.ctf)
            cryodrgn.write_ctf(aside / "ctf.pkl", particles.ctf, particles.pixel_A_n, particles.box)
        cryodrgn.write_index(aside / "ind.pkl", selection.row_m)
        if selection.z_mq is not None and selection.variance_mq is not None and selection.z_mq.size:
            cryodrgn.write_latents(aside / "z.pkl", selection.z_mq, selection.variance_mq)
        if selection.label_m is not None:
            pickles.write(aside / "labels.pkl", selection.label_m - 1)  # cryodrgn_utils select_clusters adds the 1


def _say_what_ctf_lacks(ctf: CtfParameters) -> None:
    if (ctf.scale_n != 1).any() or ctf.b_factor_A2_n.any():
        say(f"{NOTICE}ctf.pkl has no place for the CTF's scale and B factors: left out")


def start_of_names(table: tables.Table, datadir: Path | None) -> Path | None:
    """The folder that the first image's name starts from; None where it starts nowhere, or its stack is not found."""
    first = table.take(np.arange(1))
    name, stack = first.images()[0][0], tables.find_stacks(first, datadir)[0][0].absolute()
    if Path(name).is_absolute() or not stack.exists() or not str(stack).endswith(f"/{name}"):
        return None
    return Path(str(stack).removesuffix(name))


def scale_of(table: tables.Table, datadir: Path | None) -> tuple[float, int] | None:
    """(Å per pixel, box) of the first image, or None where neither the table nor its stack says them."""
    first = table.take(np.arange(1))
    first, _ = tables.add_options(first, tables.find_stacks(first, datadir)[0][0], None, None, None, None)
    pixel_A_n, box_n = first.pixel_A_n(), first.box_n()
    return None if pixel_A_n is None or box_n is None else (float(pixel_A_n[0]), int(box_n[0]))
