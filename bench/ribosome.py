"""Back-projection of a 70S ribosome: FSC against the true map.

    MORPHEM_FIXTURES=... python bench/ribosome.py

The map ribosome70S_65.mrc of another program's test data, cropped to 64 px and taken as 5 Å a pixel; 5,000 images
with CTF at SNR 0.1, projected by trilinear interpolation of a four times padded transform.
"""

import tempfile
from pathlib import Path

import numpy as np
import peers
import torch

from morphem.data.dataset import Dataset, Source
from morphem.data.particles import Particles
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.inference import consensus
from morphem.io.mrc import create_stack, read_map, write_map
from morphem.models.volume import LinearVolume
from morphem.physics.ctf import ctf
from morphem.physics.fsc import fsc
from morphem.physics.lattice import Lattice

BOX, PIXEL_A = 64, 5.0


def true_map() -> torch.Tensor:
    """The map, cropped to 64 voxels."""
    fixtures = peers.folder("MORPHEM_FIXTURES", "ribosome70S_65.mrc")
    return torch.tensor(read_map(fixtures / "ribosome70S_65.mrc")[0])[:BOX, :BOX, :BOX]


def write_images(folder: Path, map_zyx: torch.Tensor, config: Simulation) -> None:
    """A simulated set whose images and true map are replaced by those of the map."""
    simulate(folder, config)
    write_map(folder / "vols" / "000.mrc", map_zyx.numpy(), PIXEL_A)
    particles = Particles.read(folder / "particles.star")
    lattice, volume = Lattice.disc(BOX), LinearVolume.of(map_zyx[None], BOX // 2 - 1, padding=4)
    matrix_b133 = torch.from_numpy(particles.rotation_n33).float()[:, None]
    shift_b2 = torch.from_numpy(particles.shift_A_n2 / PIXEL_A)
    clean = []
    for rows in torch.arange(config.images).split(250):
        slice_bk = volume.slices(matrix_b133[rows], lattice, torch.zeros(len(rows), 1, 0))[:, 0]
        ctf_bk = ctf(particles.ctf.take(rows.numpy()), particles.pixel_A_n[rows], lattice.k_k2, BOX)
        clean.append(-lattice.unpack(slice_bk * ctf_bk * lattice.shift_phase(shift_b2[rows])).numpy())
    clean_bdd = np.concatenate(clean)
    noise = (
        np.random.default_rng(config.seed).standard_normal(clean_bdd.shape, np.float32)
        * (clean_bdd.var() / config.snr) ** 0.5
    )
    with create_stack(folder / "particles.mrcs", config.images, BOX, PIXEL_A) as stack:
        stack[:] = clean_bdd + noise


def main() -> None:
    map_zyx, config = true_map(), Simulation(kind="still", images=5000, box=BOX, pixel_size=PIXEL_A, snr=0.1)
    with tempfile.TemporaryDirectory() as scratch:
        write_images(Path(scratch) / "set", map_zyx, config)
        found = consensus.reconstruct(Dataset.open(Source(Path(scratch) / "set" / "particles.star")), seed=0)
    curve_s = fsc(found.map_zyx, map_zyx.numpy())
    third = (BOX // 2) // 3
    print(f"FSC against the truth, lowest up to a third of Nyquist (shell {third}): {curve_s[1 : third + 1].min():.4f}")
    print(f"first shell below 0.9: {np.argmax(curve_s[1:] < 0.9) + 1}; below 0.5: {np.argmax(curve_s[1:] < 0.5) + 1}")
    print("by shell:", " ".join(f"{value:.2f}" for value in curve_s[1:]))


if __name__ == "__main__":
    main()
