"""Slicing and insertion on the CPU, compiled against plain torch, in one process: images per second and ratios.

python bench/slices.py
"""

import statistics
import time

import numpy as np
import torch

from morphem.physics import rotations
from morphem.physics import slice as slices
from morphem.physics.lattice import Lattice


def rate(work, images: int, repeats: int = 7) -> float:
    """Median images per second over some runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return images / statistics.median(seconds)


def main() -> None:
    rng, lattice, images = np.random.default_rng(0), Lattice.disc(64), 200
    print(f"64 px, {len(lattice)} samples an image, {torch.get_num_threads()} threads; images/s")
    print(f"{'channels':>8} {'sample':>9} {'torch':>9} {'ratio':>6} {'insert':>9} {'torch':>9} {'ratio':>6}")
    for channels in (2, 3, 16):
        print(f"{channels:>8} {row(lattice, images, channels, rng)}")


def row(lattice: Lattice, images: int, channels: int, rng: np.random.Generator) -> str:
    """Rates and ratios for one number of channels."""
    cube_zyxc = torch.from_numpy(rng.standard_normal(slices.cube_shape(31, channels)).astype(np.float32))
    where = torch.from_numpy(rotations.uniform(images, rng)).float(), lattice.coords_k2, torch.arange(channels) % 2 == 1
    value_bkc = slices.sample(cube_zyxc, *where)
    a = rate(lambda: slices.sample(cube_zyxc, *where), images)
    b = rate(lambda: slices._sample_torch(cube_zyxc, *where), images)
    c = rate(lambda: slices.insert(value_bkc, *where, cube_zyxc), images)
    d = rate(lambda: slices._insert_torch(value_bkc, *where, cube_zyxc), images)
    return f"{a:>9,.0f} {b:>9,.0f} {a / b:>6.1f} {c:>9,.0f} {d:>9,.0f} {c / d:>6.1f}"


if __name__ == "__main__":
    main()
