"""Kernel decoding against back-projection of the true states' images: per-image AUC, and seconds.

    python bench/kernel.py [--images 5000] [--box 64] [--snr 0.1] [--molecules 3] [--deviation 0.07] [--scored 100]

Hinges of simulation.md's recipe. Latents are the true ones, (cos, sin) of the angle, moved by Gaussian noise whose
covariance the decoder is told; back-projection has the true labels instead. `--vary` measures its choices too.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from morphem.data.dataset import Dataset, Source
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.evaluation.fsc import auc, benchmark_fsc
from morphem.evaluation.truth import Truth
from morphem.inference.consensus import reconstruct
from morphem.inference.kernel import Kernel, decoder
from morphem.inference.neighbours import Latents
from morphem.inference.regression import Centred

VARIATIONS = {
    "Epanechnikov": {"kernel": "epanechnikov"},
    "no covariances": {"covariance_nqq": None},
    "padding 2": {"padding": 2},
    "local-linear, 1 axis": {"directions": 1},
    "local-linear, 2 axes": {"directions": 2},
}
OF_LATENTS = {"kernel", "covariance_nqq"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--molecules", type=int, default=3)
    parser.add_argument("--deviation", type=float, default=0.07)
    parser.add_argument("--scored", type=int, default=100)
    parser.add_argument("--vary", action="store_true")
    options = parser.parse_args()
    for molecule in range(options.molecules):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            settings = Simulation(
                images=options.images, box=options.box, pixel_size=192 / options.box, snr=options.snr,
                molecule_seed=molecule, seed=molecule,
            )  # fmt: skip
            simulate(folder, settings)
            report(folder, molecule, options)


def report(folder: Path, molecule: int, options: argparse.Namespace) -> None:
    dataset, truth = Dataset.open(Source(folder / "particles.star")), Truth.open(folder)
    rows = np.unique(np.arange(options.scored) * len(dataset) // options.scored)
    latents, half_n = on_circle(truth, options.deviation), np.ones(len(dataset), int)
    half_n[dataset.halves(0)[1]] = 2
    start = time.perf_counter()
    consensus = reconstruct(dataset, 0)
    kernel = decoder(dataset, latents, half_n, consensus.map_zyx)
    print(f"molecule {molecule}: consensus and noise in {time.perf_counter() - start:.1f} s", flush=True)
    score("consensus", [consensus.map_zyx] * len(rows), truth, rows)
    score("true states", of_states(kernel, truth, rows), truth, rows)
    measure("kernel", kernel, truth, rows)
    for name, change in VARIATIONS.items() if options.vary else ():
        measure(name, changed(kernel, change), truth, rows)


def on_circle(truth: Truth, deviation: float) -> Latents:
    """True latents, moved by noise, with its covariance."""
    angle_n = np.deg2rad(truth.angle_deg_n)
    noise_n2 = deviation * np.random.default_rng(0).standard_normal((len(angle_n), 2))
    covariance_n22 = np.tile(deviation**2 * np.eye(2), (len(angle_n), 1, 1))
    return Latents(np.stack([np.cos(angle_n), np.sin(angle_n)], axis=1) + noise_n2, covariance_n22)


def changed(kernel: Kernel, change: dict) -> Kernel:
    """The decoder with another choice, of its latents or its own."""
    own = {name: getattr(kernel.latents, name) for name in ("z_nq", "covariance_nqq", "kernel")}
    latents = Latents(**own | {name: value for name, value in change.items() if name in OF_LATENTS})
    rest = {name: value for name, value in change.items() if name not in OF_LATENTS}
    return Kernel(kernel.dataset, latents, kernel.half_n, **rest)


def of_states(kernel: Kernel, truth: Truth, rows: np.ndarray) -> list[np.ndarray]:
    """Of each row, all images of its true state back-projected."""
    maps = {}
    for state in np.unique(truth.state_n[rows]):
        observed = kernel.dataset.observed(np.flatnonzero(truth.state_n == state))
        regression, every = kernel.regression, torch.arange(len(observed))
        sum_zyxc = torch.zeros(regression.shape)
        regression.add(Centred.of(observed), every, regression.moments(np.zeros((len(observed), 2)), None), sum_zyxc)
        maps[state] = regression.maps(sum_zyxc[None])[0].numpy()
    return [maps[state] for state in truth.state_n[rows]]


def measure(name: str, kernel: Kernel, truth: Truth, rows: np.ndarray) -> None:
    start = time.perf_counter()
    states = list(kernel.states(kernel.latents.z_nq[rows]))
    seconds = time.perf_counter() - start
    images_b = np.median([state.of_bands(state.images_buvw) for state in states], axis=0)
    listed = " ".join(f"{images:.0f}" for images in images_b)
    note = f"  {seconds:.1f} s, {seconds / len(rows):.2f} s a state; images in each band {listed}"
    score(name, [state.map_zyx for state in states], truth, rows, note)
    score(f"{name}, half maps' mean", [state.half_hzyx.mean(0) for state in states], truth, rows)


def score(name: str, maps: list[np.ndarray], truth: Truth, rows: np.ndarray, note: str = "") -> None:
    areas_n2 = np.empty((len(rows), 2))
    for area_2, map_zyx, state in zip(areas_n2, maps, truth.state_n[rows], strict=True):
        true_zyx, mask_zyx = truth.map(state), truth.mask_zyx
        area_2[0] = auc(benchmark_fsc(map_zyx, true_zyx))
        area_2[1] = auc(benchmark_fsc(map_zyx * mask_zyx, true_zyx * mask_zyx))
    mean, masked = areas_n2.mean(0)
    print(f"  {name:32} AUC {mean:.4f}, masked {masked:.4f}{note}", flush=True)


if __name__ == "__main__":
    main()
