"""What `morphem analyze` does with latents alone, timed on very many: components, clusters, a plane to draw them on.

    python bench/analysis.py [--images 1000000] [--limit 1800]

Half of the latents are five Gaussians, half lie along a curve with noise about it, in eight dimensions. Each stage runs
in a process of its own: its seconds without loading, the peak of its memory with everything. Trustworthiness is
scikit-learn's, of 3,000 images and 15 neighbours. Where CRYODRGN_BIN names the folder of cryoDRGN's programs, its
`analyze --skip-vol` makes all of components, k-means and UMAP of the same latents, within the limit of seconds.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

CLUSTERS = 20
CONFIG = "dataset_args: {particles: none, ctf: null}\nmodel_args: {}\n"
T = TypeVar("T")


def latents(images: int) -> np.ndarray:
    """z (n, 8): a mixture and a curve."""
    rng, half = np.random.default_rng(0), images // 2
    mixed = 3 * rng.standard_normal((5, 8))[rng.integers(5, size=half)] + 0.5 * rng.standard_normal((half, 8))
    angle = rng.uniform(0, 4, images - half)
    curve = 0.4 * rng.standard_normal((images - half, 8))
    curve[:, :3] += np.stack([6 * np.cos(angle), 6 * np.sin(angle), angle], axis=1)
    return np.concatenate([mixed, curve]).astype(np.float32)


def components(z_nq: np.ndarray) -> str:
    from morphem.analysis.latent import principal_components

    return lap(lambda: principal_components(z_nq))[0]


def clusters(by: str) -> Callable[[np.ndarray], str]:
    def stage(z_nq: np.ndarray) -> str:
        from morphem.inference.clusters import cluster

        seconds, found = lap(lambda: cluster(z_nq, CLUSTERS, seed=0, by=by))
        inertia = ((z_nq - found.mean_kq[found.label_n - 1]) ** 2).sum(1).mean()
        return f"{seconds} {inertia:.4f} squared distance to the centre"

    return stage


def plane(z_nq: np.ndarray) -> str:
    from morphem.analysis.latent import embed

    seconds, plane_n2 = lap(lambda: embed(z_nq, seed=0))
    return f"{seconds} {trust(z_nq, plane_n2)}"


def trust(z_nq: np.ndarray, plane_n2: np.ndarray) -> str:
    """Whether neighbours in the plane are neighbours in z: 1 where all are."""
    from sklearn.manifold import trustworthiness

    row_m = np.random.default_rng(1).permutation(len(z_nq))[:3000]
    return f"{trustworthiness(z_nq[row_m], plane_n2[row_m], n_neighbors=15):.4f} trustworthiness"


def lap(work: Callable[[], T]) -> tuple[str, T]:
    """Seconds of some work, and what it gives."""
    start = time.perf_counter()
    found = work()
    return f"{time.perf_counter() - start:.1f}", found


STAGES = {
    "components": components,
    "k-means": clusters("kmeans"),
    "Gaussians": clusters("gaussians"),
    "density peaks": clusters("density"),
    "plane": plane,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--limit", type=int, default=1800)
    parser.add_argument("--stage", choices=STAGES, help="run one stage in this process")
    options = parser.parse_args()
    if options.stage:
        print(STAGES[options.stage](latents(options.images)))
        return
    print(f"{options.images:,} x 8 latents, {len(os.sched_getaffinity(0))} cores")
    print(f"{'stage':<28}{'seconds':>8}{'peak GiB':>10}  quality")
    for stage in STAGES:
        said, memory, _ = measured(sys.executable, __file__, "--stage", stage, "--images", options.images)
        seconds, _, quality = said.strip().partition(" ")
        print(f"{stage:<28}{seconds:>8}{memory:>10.2f}  {quality}", flush=True)
    print(f"{'cryoDRGN, all of it':<28}{peer(latents(options.images), options.limit)}")


def measured(*words: object, limit: int = 0) -> tuple[str, float, float]:
    """What a command prints, the peak of its memory in GiB, its seconds; 0 is no limit.

    Errors: SystemExit where it fails; TimeoutError at the limit.
    """
    start = time.perf_counter()
    process = subprocess.Popen(["timeout", str(limit), *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == 124:
        raise TimeoutError
    if process.returncode:
        raise SystemExit(f"{words[0]} ended with {process.returncode}")
    return said, used.ru_maxrss / 2**20, time.perf_counter() - start


def peer(z_nq: np.ndarray, limit: int) -> str:
    """Seconds with loading, memory, the plane of cryoDRGN's `analyze`, in a folder that looks like its training's."""
    if "CRYODRGN_BIN" not in os.environ:
        return "not run: CRYODRGN_BIN is not set"
    with tempfile.TemporaryDirectory() as scratch:
        work, out = Path(scratch), Path(scratch) / "analyze.0"
        for name in ("pc1", "pc2"):
            (out / name).mkdir(parents=True)  # it draws into them, but makes them with volumes alone
        with (work / "z.0.pkl").open("wb") as file:
            pickle.dump(z_nq, file)
        for name, text in (("weights.0.pkl", ""), ("run.log", ""), ("config.yaml", CONFIG)):
            (work / name).write_text(text)
        program = Path(os.environ["CRYODRGN_BIN"]) / "cryodrgn"
        words = (program, "analyze", work, 0, "--skip-vol", "--ksample", CLUSTERS)
        try:
            _, memory, seconds = measured(*words, limit=limit)
        except TimeoutError:
            return f"did not end within {limit} s"
        plane_n2 = pickle.loads((out / "umap.pkl").read_bytes())
    return f"{seconds:>8.1f}{memory:>10.2f}  {trust(z_nq, plane_n2)}"


if __name__ == "__main__":
    main()
