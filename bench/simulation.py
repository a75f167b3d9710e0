"""Seconds to simulate 5,000 images of 64 px, every kind.

python bench/simulation.py
"""

import tempfile
import time
from pathlib import Path

from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        simulate(Path(scratch) / "warm", Simulation(images=10))
        for kind in ("hinge", "linker", "assembly", "molecules", "still"):
            start = time.perf_counter()
            simulate(Path(scratch) / kind, Simulation(kind=kind))
            print(f"{kind:10} {time.perf_counter() - start:5.1f} s")


if __name__ == "__main__":
    main()
