"""Fourier cropping of particle images, and the table that goes with the smaller ones.

Axes: b images of a chunk, n particles; D the box that comes in, d the one that goes out, h = d/2 + 1.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import fft

from morphem.data import tables
from morphem.data.cryosparc import CsTable
from morphem.data.dataset import read_ahead
from morphem.data.images import Images
from morphem.data.particles import Particles
from morphem.data.relion import StarTable
from morphem.errors import InputError
from morphem.io.files import refuse_file, replacing
from morphem.io.mrc import create_stack

IN_PIXELS = ("rlnOriginX", "rlnOriginY", "rlnOriginXPrior", "rlnOriginYPrior")
SMALLEST = 4
CHUNK_PIXELS = 2**22
"""Of the images held at once."""


def read(path: Path, ctf: Path | None = None, **options) -> Particles:
    """The particles to downsample: they need neither poses nor, where the table lacks one, a CTF.

    Errors: as `Particles.read`, whose options it takes.
    """
    particles = Particles.read(path, ctf=ctf, no_ctf=ctf is None, require_poses=False, **options)
    if particles.ctf is None and particles.table is not None and not tables.absent_ctf(particles.table):
        return replace(particles, ctf=tables.ctf_of(particles.table)[0])
    return particles


def downsample(
    particles: Particles,
    box: int,
    output: Path,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Write `output` and, beside it, its stack .mrcs of all images cropped to `box`.

    Images are named relative to the current folder where the output lies below it, else by their whole path: so RELION,
    which looks from where it is started, finds them from here, and morphem, which also tries the folders above a table,
    from anywhere. A header holds one pixel size, that of most images. Nothing is left behind by a failure.
    Errors: InputError for a box or an output that makes no sense; RunError when the disk is full.
    """
    stack = output.with_suffix(".mrcs")
    _refuse(particles, box, output, overwrite)
    images = Images(particles, "dark")
    small = _smaller(particles, box, stack)
    sizes, counts = np.unique(small.pixel_A_n, return_counts=True)
    with replacing(output) as aside, create_stack(stack, len(small), box, float(sizes[counts.argmax()])) as image_ndd:
        step = max(CHUNK_PIXELS // particles.box**2, 1)
        chunks = (np.arange(start, min(start + step, len(small))) for start in range(0, len(small), step))
        for index_b, image_bdd in read_ahead(images, chunks):
            image_ndd[index_b] = fourier_crop(image_bdd.numpy(), box)
            progress(len(index_b))
        _write_table(small, aside, output.suffix)


def _refuse(particles: Particles, box: int, output: Path, overwrite: bool) -> None:
    """Errors: InputError for what cannot be downsampled to `box` and written to `output`."""
    if box % 2 or not SMALLEST <= box < particles.box:
        raise InputError(f"--box {box}: expected an even number from {SMALLEST} to {particles.box - 1}, below the box")
    if output.suffix not in (".star", ".cs"):
        raise InputError(f'{output}: ends in "{output.suffix}", expected .star or .cs; give such a name')
    if output.suffix == ".cs" and not isinstance(particles.table, CsTable):
        raise InputError(f"{output}: {particles.path} has no .cs fields to write; give a name that ends in .star")
    refuse_file(output.absolute().parent)
    read = {path.resolve() for path in (particles.path, *particles.stacks)}
    for path in (output, output.with_suffix(".mrcs")):
        if path.resolve() in read:
            raise InputError(f"{path}: is what is to be downsampled; give another name")
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give another name")
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists already; give another name, or --overwrite to replace it")


def fourier_crop(image_bdd: np.ndarray, box: int) -> np.ndarray:
    """F_d(k) = (d/D)² F_D(k) for |kx|, |ky| ≤ d/2, so that grey values stay; at d/2 the mean of k and −k; float32."""
    half = box // 2
    spectrum_bdh = np.asarray(fft.rfft2(image_bdd, workers=_workers()))[..., : half + 1]
    cropped_bdh = np.concatenate([spectrum_bdh[:, :half], spectrum_bdh[:, -half:]], axis=1)
    cropped_bdh[:, half] = (spectrum_bdh[:, half] + spectrum_bdh[:, -half]) / 2
    scale = np.float32((box / image_bdd.shape[-1]) ** 2)
    return np.asarray(fft.irfft2(cropped_bdh * scale, s=(box, box), workers=_workers()))


def _workers() -> int:
    return len(os.sched_getaffinity(0))


def _smaller(particles: Particles, box: int, stack: Path) -> Particles:
    """The table of the cropped images: pixels grow by D/d, shifts in Å stay."""
    growth = particles.box / box
    number_n, table = np.arange(len(particles)), particles.table
    if isinstance(table, StarTable):
        table = _star(table, box, growth)
    elif isinstance(table, CsTable):
        table = _cs(table, box, growth, stack)
    pixel_A_n = particles.pixel_A_n * growth
    stacks = {"stacks": (stack,), "stack_n": np.zeros_like(number_n), "slice_n": number_n}
    return replace(particles, box=box, pixel_A_n=pixel_A_n, table=table, **stacks)


def _star(table: StarTable, box: int, growth: float) -> StarTable:
    """Box, pixel size and origins in pixels wherever the table says them; Magnification where it gives the pixel."""
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "rlnImageSize": lambda side: np.full(len(side), box),
        "rlnImagePixelSize": lambda pixel_A: pixel_A * growth,
    }
    changes |= dict.fromkeys(IN_PIXELS, lambda origin: origin / growth)
    if _is_of_magnification(table):
        changes["rlnMagnification"] = lambda magnification: magnification / growth
    return table.with_changed(changes)


def _is_of_magnification(table: StarTable) -> bool:
    """Whether detector and magnification give the pixel size, or do so too."""
    detector_um_n, magnification_n = table.number("rlnDetectorPixelSize"), table.number("rlnMagnification")
    if detector_um_n is None or magnification_n is None:
        return False
    return np.allclose(detector_um_n * 1e4, magnification_n * tables.pixel_A_of(table), rtol=1e-3, atol=0)


def _cs(table: CsTable, box: int, growth: float, stack: Path) -> CsTable:
    """New blobs; shifts that are in pixels of the blob, as those without a pixel size of their own, shrink."""
    columns = {
        "blob/path": np.full(len(table), _shown(stack).encode()),
        "blob/idx": np.arange(len(table)),
        "blob/psize_A": tables.pixel_A_of(table) * growth,
        **table.box_columns(box),
    }
    for kind in ("alignments2D", "alignments3D"):
        shift = table.number(f"{kind}/shift")
        if shift is not None and not table.has(f"{kind}/psize_A"):
            columns[f"{kind}/shift"] = shift / growth
    return table.with_columns(columns)


def _shown(stack: Path) -> str:
    """From here, where it lies below."""
    whole, here = stack.absolute(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def _write_table(small: Particles, path: Path, suffix: str) -> None:
    """Under a name that does not say yet what it is."""
    if suffix == ".cs":
        assert small.table is not None
        small.table.write(path)
        return
    stack = _shown(small.stacks[0])
    small.write(path, {"rlnImageName": np.array([f"{number + 1:06d}@{stack}" for number in small.slice_n])})
