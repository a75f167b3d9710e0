"""Back-projection against cryoDRGN 4.3.1 on the same images, by turns, in one run.

    python bench/backprojection.py [--images 5000] [--box 64] [--rounds 3]

A hinge of simulation.md's recipe. Both programs read the same stack and the same poses and CTFs, and write a map and
half-maps. What counts is the time after start-up: the wall time less that of the same command on 10 images.
"""

import argparse
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import peers

from morphem.data.particles import Particles
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.evaluation.fsc import auc, benchmark_fsc
from morphem.io.mrc import create_stack, open_stack, read_map

MORPHEM = [sys.executable, "-m", "morphem", "backproject"]


def seconds(command: list) -> float:
    """Wall time of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return time.perf_counter() - start


def write_inputs(folder: Path, images: int) -> None:
    """The first `images` of a set as a STAR, and as a stack with cryoDRGN's pickles."""
    particles = Particles.read(folder / "particles.star").take(np.arange(images))
    particles.write(folder / f"first{images}.star")
    ctf, box = particles.ctf, particles.box
    shift_n2 = particles.shift_A_n2 / particles.pixel_A_n[:, None] / box
    table_n9 = np.column_stack(
        [
            np.full(images, box),
            particles.pixel_A_n,
            ctf.defocus_u_A_n,
            ctf.defocus_v_A_n,
            np.degrees(ctf.astigmatism_rad_n),
            ctf.voltage_kV_n,
            ctf.cs_mm_n,
            ctf.amplitude_contrast_n,
            np.degrees(ctf.phase_shift_rad_n),
        ]
    ).astype(np.float32)
    (folder / f"pose{images}.pkl").write_bytes(pickle.dumps((particles.rotation_n33.astype(np.float32), shift_n2)))
    (folder / f"ctf{images}.pkl").write_bytes(pickle.dumps(table_n9))
    with create_stack(folder / f"first{images}.mrcs", images, box, float(particles.pixel_A_n[0])) as stack:
        stack[:] = open_stack(folder / "particles.mrcs").images_nyx[:images]


def commands(folder: Path, images: int, peer: Path) -> dict[str, list]:
    ours = [*MORPHEM, folder / f"first{images}.star", "-o", folder / "ours", "--overwrite"]
    theirs = [peer / "cryodrgn", "backproject_voxel", folder / f"first{images}.mrcs", "--outdir", folder / "theirs"]
    theirs += ["--poses", folder / f"pose{images}.pkl", "--ctf", folder / f"ctf{images}.pkl"]
    return {"morphem": ours, "cryoDRGN": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "set"
        simulate(folder, Simulation(images=options.images, box=options.box))
        for images in (10, options.images):
            write_inputs(folder, images)
        report(folder, options.images, options.rounds)


def report(folder: Path, images: int, rounds: int) -> None:
    peer, times = peers.cryodrgn(), {"morphem": [], "cryoDRGN": []}
    for _ in range(rounds):
        for name in times:
            start_up = seconds(commands(folder, 10, peer)[name])
            times[name].append(seconds(commands(folder, images, peer)[name]) - start_up)
    truth = np.mean([read_map(path)[0] for path in sorted(folder.glob("vols/*.mrc"))], axis=0)
    maps = {"morphem": folder / "ours/maps/consensus.mrc", "cryoDRGN": folder / "theirs/backproject.mrc"}
    print(f"{images} images; {rounds} rounds by turns; seconds after start-up")
    for name, values in times.items():
        middle = statistics.median(values)
        area = auc(benchmark_fsc(read_map(maps[name])[0], truth))
        listed = ", ".join(f"{value:.2f}" for value in values)
        print(f"{name:9} {listed} s; median {images / middle:,.0f} images/s; AUC against the mean true map {area:.4f}")
    ratios = [b / a for a, b in zip(*times.values(), strict=True)]
    print(f"ratio: median {statistics.median(ratios):.1f}, {min(ratios):.1f} to {max(ratios):.1f}")


if __name__ == "__main__":
    main()
