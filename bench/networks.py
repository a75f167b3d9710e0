"""Network methods against cryoDRGN 4.3.1's train_vae on the same images, in one run: time, maps, motion.

    python bench/networks.py [--box 64 --images 5000] [--seeds 0 1] [--pin] [--json FILE] [options of `morphem fit`]

A hinge of simulation.md's recipe, networks of equal width and depth, equal latent, epochs and batch; the rest are each
program's own defaults. All seeds train on one set. A command's seconds are those of training as a user would wait for
it, start-up included; its images/s are those of its epochs alone. Maps and latents of both programs go through the same
scoring. cryoDRGN's maps are scored as it writes them and with the border and window that ours have; the better counts.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import peers
import torch
from backprojection import write_inputs

from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.evaluation import truth
from morphem.io import pickles
from morphem.io.mrc import read_map
from morphem.physics.cube import within_sphere
from morphem.run import Run

MORPHEM = (sys.executable, "-m", "morphem")
PEER = "cryoDRGN"
SCORES = ("per_image_auc", "per_image_auc_masked", "motion_error_deg", "motion_error_mean_deg")
MEANT = ("seconds", "images_per_s", *SCORES)
"""What the rows of seeds are averaged over."""


@dataclass(frozen=True)
class Bench:
    """What every program is told, and where the set lies."""

    folder: Path
    images: int
    box: int
    pixel_A: float
    snr: float
    epochs: int
    batch: int
    zdim: int
    width: int
    layers: int
    threads: int
    more: tuple[str, ...]
    """Further options of `morphem fit`."""


@dataclass(frozen=True)
class Ended:
    """A command that succeeded: what it printed and what it took."""

    output: str
    seconds: float
    cpu_seconds: float

    @property
    def cost(self) -> dict[str, float]:
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "load": os.getloadavg()[0]}


class Failed(Exception):
    """Its text is the last that a command said."""


def run(bench: Bench, *words: object) -> Ended:
    """Run a command to its end. A thread's pinning goes over to it. Errors: Failed."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        environment = os.environ | {"OMP_NUM_THREADS": str(bench.threads)}
        child = subprocess.Popen([str(word) for word in words], stdout=output, stderr=errors, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        output.seek(0)
        errors.seek(0)
        if child.returncode:
            raise Failed(f"exit {child.returncode}: {' '.join(errors.read().split())[-300:]}")
        return Ended(output.read(), seconds, usage.ru_utime + usage.ru_stime)


def train_theirs(bench: Bench, folder: Path, seed: int, program: Path) -> dict:
    """Cost of cryoDRGN's training. Its analysis of the last epoch, which is no training, is left out."""
    poses, ctf = (bench.folder / f"{what}{bench.images}.pkl" for what in ("pose", "ctf"))
    inputs = [bench.folder / f"first{bench.images}.mrcs", "--poses", poses, "--ctf", ctf]
    sizes = ["--enc-dim", bench.width, "--enc-layers", bench.layers, "--dec-dim", bench.width]
    sizes += ["--dec-layers", bench.layers, "--zdim", bench.zdim, "-n", bench.epochs, "-b", bench.batch]
    command = [program / "cryodrgn", "train_vae", *inputs, "-o", folder, *sizes, "--seed", seed, "--no-analysis"]
    cost = run(bench, *command).cost
    found = re.findall(r"=> Epoch: .* Finished in (\d+):(\d+):([\d.]+)", (folder / "run.log").read_text())
    seconds = [3600 * float(h) + 60 * float(m) + float(s) for h, m, s in found]
    return cost | {"images_per_s": bench.images * len(seconds) / sum(seconds)}


def score_theirs(bench: Bench, folder: Path, program: Path) -> dict:
    """cryoDRGN's maps at the z of the images that `morphem evaluate` scores, and its z, through the same functions."""
    known, z_nq = truth.Truth.open(bench.folder), pickles.read(folder / f"z.{bench.epochs}.pkl")
    pick = np.unique(np.arange(truth.SCORED) * bench.images // truth.SCORED)
    np.savetxt(folder / "scored.txt", z_nq[pick])
    with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
        model = [folder / f"weights.{bench.epochs}.pkl", "-c", folder / "config.yaml", "--Apix", bench.pixel_A]
        decoded = run(bench, program / "cryodrgn", "eval_vol", *model, "--zfile", folder / "scored.txt", "-o", scratch)
        maps = [read_map(path)[0] for path in sorted(Path(scratch).glob("*.mrc"))]
    state_n = known.state_n[pick]
    area = {name: truth._areas(map(treat, maps), known, state_n).mean(0)[:2] for name, treat in TREATED.items()}
    scores = (*np.max(list(area.values()), axis=0), *truth._motion(known, z_nq, 0))
    positive = np.mean([np.vdot(windowed(m), known.map(s)) > 0 for m, s in zip(maps, state_n, strict=True)])
    told = {"decode_seconds": decoded.seconds, "positive": float(positive)}
    return dict(zip(SCORES, map(float, scores), strict=True)) | told | {k: v.tolist() for k, v in area.items()}


def windowed(map_zyx: np.ndarray) -> np.ndarray:
    """What this program makes of its own maps: border 0 in the median, the window of the images."""
    return within_sphere(torch.tensor(map_zyx)[None])[0].numpy()


TREATED: dict[str, Callable[[np.ndarray], np.ndarray]] = {"as written": np.asarray, "windowed": windowed}


def train_ours(bench: Bench, folder: Path, seed: int, method: str) -> dict:
    """Cost of the training of a method of this program."""
    sizes = ["--width", bench.width, "--layers", bench.layers, "--zdim", bench.zdim, "-n", bench.epochs]
    computing = ["-b", bench.batch, "--threads", bench.threads, "--seed", seed, *bench.more]
    command = [*MORPHEM, "fit", method, bench.folder / "particles.star", "-o", folder, *sizes, *computing]
    cost = run(bench, *command).cost
    seconds = [line["seconds"] for line in Run(folder).history() if "epoch" in line]
    return cost | {"images_per_s": bench.images * len(seconds) / sum(seconds)}


def score_ours(bench: Bench, folder: Path) -> dict:
    evaluated = run(bench, *MORPHEM, "evaluate", folder, "--truth", bench.folder, "--json")
    told = json.loads(evaluated.output)
    return {name: told[name] for name in (*SCORES, "consensus_auc")} | {"decode_seconds": evaluated.seconds}


class Results:
    """Rows, printed and written as they come."""

    def __init__(self, path: Path | None, bench: Bench):
        self.path, self.rows, self.lock = path, [], threading.Lock()
        self.told = {name: value for name, value in asdict(bench).items() if name != "folder"}

    def add(self, program: str, seed: int, *steps: Callable[[], dict]) -> None:
        """A row, step by step; a step that fails is told in the row and ends it, but nothing else."""
        row = {"program": program, "seed": seed}
        self.rows.append(row)
        try:
            for step in steps:
                self.put(row, step())
        except Exception as error:  # hours of other rows are not to be lost with this one
            self.put(row, {"failed": f"{type(error).__name__}: {error}"})

    def put(self, row: dict, found: dict) -> None:
        """Add to a row, say it, and write all rows."""
        found |= {"ended": time.strftime("%Y-%m-%d %H:%M:%S")}
        with self.lock:
            row |= found
            said = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
            print(f"{row['program']}, seed {row['seed']}: {json.dumps(said)}", flush=True)
            if self.path:
                self.path.write_text(json.dumps({"bench": self.told, "rows": self.rows}, indent=1) + "\n")


def means(rows: list[dict]) -> list[dict]:
    """One row a program: the means over its seeds."""
    kept: dict[str, list[dict]] = {}
    for row in rows:
        kept.setdefault(row["program"], []).append(row)
    return [
        {"program": program, "seed": "mean"} | {name: float(np.mean([row[name] for row in some])) for name in MEANT}
        for program, some in kept.items()
    ]


def table(rows: list[dict]) -> None:
    """Every program and seed, then the means; beside ours, what cryoDRGN took and scored with the same seed."""
    failed = [row for row in rows if "failed" in row]
    rows = [row for row in rows if "failed" not in row]
    print(f"\n{'':24}{'':>9}{'':>9}{'AUC':>8}{'':>8}{'motion error':>16}   against {PEER}")
    print(f"{'program':16}{'seed':>8}{'seconds':>9}{'images/s':>9}{'unmasked':>9}{'masked':>8}", end="")
    print(f"{'median':>8}{'mean':>7}   {'time ratio':>10}{'AUC':>9}{'median':>9}{'mean':>8}")
    for row in sorted(rows, key=lambda row: row["seed"]) + means(rows):
        print(line(row) + versus(row, rows + means(rows)))
    consensus = [row["consensus_auc"] for row in rows if "consensus_auc" in row]
    if consensus:
        print(f"consensus AUC {np.mean(consensus):.4f}, unmasked")
    for name in TREATED:
        shown = [f"{row[name][0]:.4f} (masked {row[name][1]:.4f})" for row in rows if name in row]
        if shown:
            print(f"{PEER}'s maps {name}: {', '.join(shown)}; the better of each is in the table")
    for row in failed:
        print(f"{row['program']}, seed {row['seed']}, failed: {row['failed']}")


def line(row: dict) -> str:
    text = f"{row['program']:16}{row['seed']:>8}{row['seconds']:>9,.0f}{row['images_per_s']:>9,.1f}"
    text += f"{row['per_image_auc']:>9.4f}{row['per_image_auc_masked']:>8.4f}"
    return text + f"{row['motion_error_deg']:>7.1f}°{row['motion_error_mean_deg']:>6.1f}°"


def versus(row: dict, rows: list[dict]) -> str:
    """Time of the peer over ours; ours less the peer's for the scores."""
    peer = [other for other in rows if other["program"] == PEER and other["seed"] == row["seed"]]
    if not peer or row["program"] == PEER:
        return ""
    auc, _, median, mean = (row[name] - peer[0][name] for name in SCORES)
    return f"   {peer[0]['seconds'] / row['seconds']:>10.2f}{auc:>+9.4f}{median:>+8.1f}°{mean:>+7.1f}°"


def pin(cores: list[int]) -> None:
    """Give this thread, and every command that it starts, a core of its own."""
    os.sched_setaffinity(0, {cores.pop()})


def measure(bench: Bench, options: argparse.Namespace) -> Results:
    """A chain of programs a seed, cryoDRGN first; with --pin as many chains at a time as there are cores."""
    results, program = Results(options.json, bench), None if options.no_peer else peers.cryodrgn()

    def chain(seed: int) -> None:
        if program:
            folder = bench.folder / f"{PEER}_{seed}"
            train = partial(train_theirs, bench, folder, seed, program)
            results.add(PEER, seed, train, partial(score_theirs, bench, folder, program))
        for method in options.methods:
            folder = bench.folder / f"{method}_{seed}"
            results.add(
                method, seed, partial(train_ours, bench, folder, seed, method), partial(score_ours, bench, folder)
            )

    if options.pin:
        cores = sorted(os.sched_getaffinity(0))[: options.cores][::-1]
        with ThreadPoolExecutor(len(cores), initializer=pin, initargs=(cores,)) as pool:
            list(pool.map(chain, options.seeds))
    else:
        for seed in options.seeds:
            chain(seed)
    return results


def parsed() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--methods", nargs="*", default=["vae", "autodecoder"])
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--zdim", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--cores", type=int, default=cores, help="threads a program, or, with --pin, cores in all")
    parser.add_argument("--pin", action="store_true", help="as many seeds at a time as cores, each on one of its own")
    parser.add_argument("--no-peer", action="store_true", help="leave cryoDRGN out")
    parser.add_argument("--json", type=Path, help="file to write the rows to as they come")
    return parser.parse_known_args()


def bench_of(folder: Path, simulation: Simulation, options: argparse.Namespace, more: list[str]) -> Bench:
    threads, names = 1 if options.pin else options.cores, ("epochs", "batch", "zdim", "width", "layers", "snr")
    told = {name: getattr(options, name) for name in names}
    size = {"images": simulation.images, "box": simulation.box, "pixel_A": simulation.pixel_size}
    return Bench(folder, **size, **told, threads=threads, more=tuple(more))


def main() -> None:
    options, more = parsed()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "set"
        simulation = Simulation(images=options.images, box=options.box, snr=options.snr)
        simulate(folder, simulation)
        write_inputs(folder, options.images)
        table(measure(bench_of(folder, simulation, options, more), options).rows)


if __name__ == "__main__":
    main()
