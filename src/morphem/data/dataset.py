"""Particles and pixels joined: packed, whitened batches that methods see.

Axes: b images of a batch, n all images, k samples, g optics groups, s shells.
"""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import psutil
import torch
from cyclopts import Parameter

from morphem.data.images import Images
from morphem.data.particles import Particles
from morphem.errors import InputError
from morphem.physics.ctf import ctf
from morphem.physics.lattice import Lattice
from morphem.physics.noise import ShellPower, prepare
from morphem.run import progress


@dataclass(frozen=True)
class Source:
    """Which particles, and how to read them."""

    particles: Path
    """A .star, a .cs, or a stack with --poses and --ctf."""
    _: KW_ONLY
    datadir: Path | None = None
    """Folder that the image names start from; otherwise the table's own folder and its parents."""
    poses: Path | None = None
    """Another program's pose.pkl."""
    ctf: Path | None = None
    """Another program's ctf.pkl."""
    passthrough: Path | None = None
    """The passthrough .cs that goes with a .cs."""
    ind: Path | None = None
    """A .pkl, .npy or .txt of row numbers (from 0) to keep."""
    no_ctf: Annotated[bool, Parameter(negative="")] = False
    """The images have no CTF: it is taken as 1, nothing is inverted."""
    contrast: Literal["white", "dark"] | None = None
    """Whether particles are white (multiplied by -1 to match the CTF's sign) or dark; white where there is a CTF."""
    pixel_size: Annotated[float | None, Parameter(alias=["--apix", "--Apix"])] = None
    """Å per pixel, where the table does not say; one that contradicts the table is refused."""
    box: int | None = None
    """Box side in pixels, where the table does not say."""
    amplitude_contrast: float | None = None
    """Amplitude contrast, where the table does not say."""

    def open(self, require_poses: bool = True) -> Particles:
        """Read the table."""
        return Particles.read(
            self.particles,
            datadir=self.datadir,
            poses=self.poses,
            ctf=self.ctf,
            passthrough=self.passthrough,
            ind=self.ind,
            require_poses=require_poses,
            no_ctf=self.no_ctf,
            pixel_A=self.pixel_size,
            box=self.box,
            amplitude_contrast=self.amplitude_contrast,
        )


@dataclass(frozen=True, eq=False)
class Observed:
    """What one step sees: whitened samples X/σ, CTF/σ, and what is known of each image. Shifts are in pixels."""

    lattice: Lattice
    sample_bk: torch.Tensor
    ctf_bk: torch.Tensor
    rotation_b33: torch.Tensor
    shift_b2: torch.Tensor
    ratio_b: torch.Tensor
    """The map's pixel over the image's: the slice is read at Rᵀk · ratio and multiplied by ratio²."""
    index_b: np.ndarray

    def __len__(self) -> int:
        return len(self.sample_bk)

    def __getitem__(self, rows: slice | np.ndarray) -> "Observed":
        """Some of the images."""
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in _PER_IMAGE})

    def prefix(self, radius: float) -> "Observed":
        """The same images at a lower resolution; a view, nothing is copied."""
        n = self.lattice.prefix(radius)
        within = self.lattice.within(radius)
        return dataclasses.replace(self, lattice=within, sample_bk=self.sample_bk[:, :n], ctf_bk=self.ctf_bk[:, :n])

    def every_other(self, first: int) -> "Observed":
        """Half of the samples of the same images, evenly of every shell: those from the `first`, 0 or 1."""
        half = slice(first, None, 2)
        halved = self.sample_bk[:, half], self.ctf_bk[:, half]
        return dataclasses.replace(self, lattice=self.lattice.every_other(first), sample_bk=halved[0], ctf_bk=halved[1])

    def on(self, box: int) -> "Observed":
        """The same samples as those of smaller images: shifts count their pixels."""
        lattice = self.lattice.on(box)
        return dataclasses.replace(self, lattice=lattice, shift_b2=self.shift_b2 * (box / self.lattice.box))

    def to(self, device: str) -> "Observed":
        """The same batch on another device."""
        return dataclasses.replace(
            self, **{name: getattr(self, name).to(device) for name in _PER_IMAGE if name != "index_b"}
        )


_PER_IMAGE = [f.name for f in dataclasses.fields(Observed) if f.name != "lattice"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """All images of a run on one lattice, with the noise spectrum they are whitened by."""

    source: Source
    particles: Particles
    images: Images
    lattice: Lattice
    noise_gs: torch.Tensor
    """σ²(shell) per optics group."""
    packed_nk: torch.Tensor | None = field(repr=False)
    """All prepared samples, where memory allows; None reads them from disk each time."""
    device: str = "cpu"
    """Where batches go."""

    @classmethod
    def open(
        cls,
        source: Source,
        radius: float | None = None,
        device: str = "cpu",
        memory_share: float = 0.4,
        require_poses: bool = True,
    ) -> "Dataset":
        """Read and check every image once, estimate the noise, keep the samples if they fit a share of free memory.

        Poses that are neither in the table nor required are not numbers. The first σ² is the mean power of the prepared
        images, high by a factor 1 + SNR.
        """
        particles = source.open(require_poses)
        if len(particles) < 2:
            raise InputError(f"{source.particles}: holds {len(particles)} image; two half-sets need at least 2")
        if radius is not None and not radius >= 1:
            raise InputError(f"--radius {radius:g}: holds no Fourier sample; expected 1 to {particles.box // 2 - 1}")
        lattice = Lattice.disc(particles.box, radius)
        images = Images(particles, source.contrast)
        fits = 8 * len(particles) * len(lattice) < memory_share * psutil.virtual_memory().available
        packed_nk = torch.empty(len(particles), len(lattice), dtype=torch.complex64) if fits else None
        power = ShellPower(lattice, len(particles.optics_names))
        with progress(len(particles), "Reading images") as bar:
            for index_b, image_bdd in read_ahead(images, _chunks(np.arange(len(particles)), 500)):
                sample_bk = prepare(image_bdd, lattice)
                power.add(sample_bk, particles.optics_n[index_b])
                if packed_nk is not None:
                    packed_nk[index_b[0] : index_b[-1] + 1] = sample_bk
                bar.advance(len(index_b))
        return cls(source, particles, images, lattice, power.mean(), packed_nk, device)

    def __len__(self) -> int:
        return len(self.particles)

    @property
    def box(self) -> int:
        return self.particles.box

    @property
    def pixel_A(self) -> float:
        """The maps' pixel: the one that most images have."""
        values, counts = np.unique(self.particles.pixel_A_n, return_counts=True)
        return float(values[counts.argmax()])

    def with_noise(self, noise_gs: torch.Tensor) -> "Dataset":
        """The same images, whitened by another spectrum."""
        return dataclasses.replace(self, noise_gs=noise_gs)

    def take(self, rows: np.ndarray) -> "Dataset":
        """Some of the images, whitened as they are; the source is still that of all."""
        particles = self.particles.take(rows)
        packed_nk = None if self.packed_nk is None else self.packed_nk[torch.as_tensor(rows)]
        images = Images(particles, self.source.contrast)
        return dataclasses.replace(self, particles=particles, images=images, packed_nk=packed_nk)

    def noise_times(self, power_gs: torch.Tensor) -> torch.Tensor:
        """σ² with the first shells multiplied by what whitened residuals have left of it."""
        noise_gs = self.noise_gs.clone()
        noise_gs[:, : power_gs.shape[1]] *= power_gs
        return noise_gs

    def within(self, radius: float) -> "Dataset":
        """The same images at a lower resolution; a view of the packed samples."""
        lattice = self.lattice.within(radius)
        packed_nk = None if self.packed_nk is None else self.packed_nk[:, : len(lattice)]
        return dataclasses.replace(self, lattice=lattice, packed_nk=packed_nk)

    def halves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the two half-sets: those of the table, else by micrograph where known, else at random."""
        half_n = self.particles.half_n
        if set(np.unique(half_n)) == {1, 2}:
            return np.flatnonzero(half_n == 1), np.flatnonzero(half_n == 2)
        rng = np.random.default_rng(seed)
        micrograph_n = self.particles.micrograph_n
        unit_n = (
            np.arange(len(self))
            if micrograph_n is None
            else np.unique(micrograph_n.astype(str), return_inverse=True)[1]
        )
        if len(np.unique(unit_n)) < 20:
            unit_n = np.arange(len(self))
        order = rng.permutation(int(unit_n.max()) + 1)
        first_n = order[unit_n] % 2 == 0
        return np.flatnonzero(first_n), np.flatnonzero(~first_n)

    def batches(self, size: int, order: np.ndarray | None = None) -> Iterator[Observed]:
        """Batches of `size` images in the order given (default: the table's), read ahead by one thread."""
        order = np.arange(len(self)) if order is None else order
        if self.packed_nk is not None:
            for index_b in _chunks(order, size):
                yield self._observe(index_b, self.packed_nk[torch.as_tensor(index_b)])
            return
        for index_b, image_bdd in read_ahead(self.images, _chunks(order, size)):
            yield self._observe(index_b, prepare(image_bdd, self.lattice))

    def observed(self, index_b: np.ndarray) -> Observed:
        """One batch of the rows given."""
        return next(self.batches(len(index_b), np.asarray(index_b)))

    def transfer(self, index_b: np.ndarray, defocus_A: float = 0.0) -> torch.Tensor:
        """CTF/σ of some images, (b, k), at defoci that much larger; 1/σ where there is no CTF."""
        table, whitener_bk = self.particles, self.whitener(index_b)
        if table.ctf is None:
            return whitener_bk
        parameters = table.ctf.take(index_b).at_defocus(defocus_A)
        return ctf(parameters, table.pixel_A_n[index_b], self.lattice.k_k2, self.box) * whitener_bk

    def whitener(self, index_b: np.ndarray) -> torch.Tensor:
        """1/σ, (b, k)."""
        sigma_bs = self.noise_gs[torch.as_tensor(self.particles.optics_n[index_b])].sqrt().float()
        return (1 / sigma_bs)[:, torch.as_tensor(self.lattice.shell_k)]

    def _observe(self, index_b: np.ndarray, sample_bk: torch.Tensor) -> Observed:
        table = self.particles
        return Observed(
            self.lattice,
            sample_bk * self.whitener(index_b),
            self.transfer(index_b),
            torch.as_tensor(table.rotation_n33[index_b]).float(),
            torch.as_tensor(table.shift_A_n2[index_b] / table.pixel_A_n[index_b, None]).float(),
            torch.as_tensor(self.pixel_A / table.pixel_A_n[index_b]).float(),
            index_b,
        ).to(self.device)


def read_ahead(images: Images, chunks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Chunks of rows with their pixels; one thread reads the next chunk while this one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        waiting = None
        for index_b in chunks:
            following = (index_b, reader.submit(images.read, index_b))
            if waiting:
                yield waiting[0], torch.from_numpy(waiting[1].result())
            waiting = following
        if waiting:
            yield waiting[0], torch.from_numpy(waiting[1].result())


def _chunks(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (order[start : start + size] for start in range(0, len(order), size))
