"""Poses from nothing: how near to the truth, and how fast, set by set and seed by seed.

    python bench/abinitio.py [short uniform preferred faint molecules noise hinge assembly blobs-… ribosome] [--seeds 0]

Simulated images of 64 px in tables without poses; seconds are those of the whole command, from its start to its end.
`hinge` and `assembly` go on with `variability`, beside the same at the true poses. Molecules of `blobs-…` are walks of
80 steps of 3 normal pixels along every axis within 0.3 of the box, each point a Gaussian of σ = 1.8 px at 4 Å.
`ribosome` needs MORPHEM_FIXTURES (ribosome.py).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import ribosome
import torch

from morphem.data import synthetic
from morphem.data.molecules import State
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate

MORPHEM = (sys.executable, "-m", "morphem")
STILL = {"kind": "still", "images": 600, "snr": 0.1}
GOES_ON = ("--then", "variability", "--latent-dim", "4")
SETS = {
    "short": (STILL, ("--starts", "1", "--schedule", "short")),
    "uniform": (STILL, ()),
    "preferred": (STILL | {"images": 5000, "snr": 0.05, "view_preference": 1.5, "shift": 0.047}, ()),
    "faint": (STILL | {"images": 1500, "snr": 0.02}, ()),
    "molecules": ({"kind": "molecules", "states": 3, "images": 3000, "snr": 0.1}, ("--classes", "3")),
    "noise": (STILL | {"snr": 1e-6}, ()),
    "hinge": ({"kind": "hinge", "images": 5000, "snr": 0.1}, GOES_ON),
    "assembly": ({"kind": "assembly", "images": 5000, "snr": 0.1}, GOES_ON),
}
"""Simulation, and options of `fit abinitio`."""
SETS |= {
    f"blobs-{name}": (SETS[name][0] | {"pixel_size": 4.0, "defocus": (1e4, 2.5e4)}, SETS[name][1])
    for name in ("short", "uniform", "preferred", "faint", "molecules")
}
SETS["ribosome"] = (
    {"kind": "still", "images": 2000, "snr": 0.05, "pixel_size": ribosome.PIXEL_A},
    ("--particle-diameter", "270"),
)
BLOBS = 80, 1.8
"""Points of a walk, and σ of each in pixels."""
KEYS = (
    "rotation_error_median_deg",
    "rotation_error_90_deg",
    "shift_error_A",
    "consensus_resolution_A",
    "adjusted_rand_index",
    "motion_error_deg",
)
POSES = ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst")


def walk(seed: int, radius_px: float) -> torch.Tensor:
    """Points (n, 3) in pixels, centred; a step that would leave the ball is drawn again."""
    rng, points = torch.Generator().manual_seed(seed), [torch.zeros(3)]
    while len(points) < BLOBS[0]:
        point = points[-1] + 3 * torch.randn(3, generator=rng)
        if point.norm() < radius_px:
            points.append(point)
    return torch.stack(points) - torch.stack(points).mean(0)


def blobs(config: Simulation) -> list[State]:
    seeds = [123, *range(501, 500 + (config.states or 1))]
    return [State.of(config.pixel_size * walk(seed, 0.3 * config.box).double().numpy()) for seed in seeds]


def write(folder: Path, name: str, config: Simulation) -> None:
    if name == "ribosome":
        ribosome.write_images(folder, ribosome.true_map(), config)
        return
    instead = {"SIGMA_PX": BLOBS[1], "_states": blobs} if name.startswith("blobs") else {"SIGMA_PX": synthetic.SIGMA_PX}
    with mock.patch.multiple(synthetic, **instead):
        simulate(folder, config)


def hide_poses(table: Path) -> str:
    """Give a table's poses other names; what it was."""
    posed = unposed = table.read_text()
    for column in POSES:
        unposed = unposed.replace(f"_rln{column}", f"_true{column}")
    table.write_text(unposed)
    return posed


def scored(run: Path, folder: Path) -> dict[str, float | None]:
    told = subprocess.run([*MORPHEM, "evaluate", run, "--truth", folder, "--json"], capture_output=True, text=True)
    return json.loads(told.stdout) if told.returncode == 0 else {}


def row(name: str, seed: int, threads: int, scratch: Path) -> dict:
    settings, options = SETS[name]
    folder, run = scratch / "set", scratch / "run"
    write(folder, name, Simulation(seed=seed, molecule_seed=seed, **settings))
    posed = hide_poses(folder / "particles.star")
    common = ["--threads", str(threads), "--seed", str(seed)]
    start = time.perf_counter()
    table = folder / "particles.star"
    ended = subprocess.run([*MORPHEM, "fit", "abinitio", table, "-o", run, *options, *common], capture_output=True)
    told = {"set": name, "seed": seed, "seconds": round(time.perf_counter() - start, 1), "code": ended.returncode}
    scores = scored(run, folder)
    told |= {key: scores.get(key) for key in KEYS}
    told["by_class"] = [entry["rotation_error_median_deg"] for entry in scores.get("poses_by_class") or ()]
    if options == GOES_ON:
        table.write_text(posed)
        known = scratch / "known"
        subprocess.run([*MORPHEM, "fit", "variability", table, "-o", known, "--latent-dim", "4", *common], check=True)
        told["at_true_poses"] = {key: scored(known, folder).get(key) for key in KEYS[-2:]}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for name in options.sets:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as scratch:
                print(json.dumps(row(name, seed, options.threads, Path(scratch))), flush=True)


if __name__ == "__main__":
    main()
