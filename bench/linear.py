"""Linear volumes on simulated sets: how long, how right, and how right anyone could be with the true maps in hand.

    python bench/linear.py hinge [--molecules 0 1 2 3 4] [--images 5000 --box 64]     variability, q = 6
    python bench/linear.py assembly | molecules [--images 20000]                      classify, K = 16 or 20
    python bench/linear.py relion70S                                                  variability; needs MORPHEM_DATA
    python bench/linear.py size [--sizes 5000x64 10000x128 100000x64]                 variability: time and memory

Every fit is a command as a user would give it, timed from its start to its end, with the most memory that it held. The
ceilings: of maps, back-projection of the images of each true state; of classes, each image given to the likeliest true
map. A second fit of each kind is timed too, since the first one on a machine compiles its kernels.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import peers
import torch
from sklearn.metrics import adjusted_rand_score

from morphem.data.dataset import Dataset, Source
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate
from morphem.ensemble import Ensemble
from morphem.evaluation import truth
from morphem.inference.subspaces import Subspaces
from morphem.inference.windows import reconstruct_windows
from morphem.models.image_model import ImageModel
from morphem.models.volume import LinearVolume
from morphem.run import Compute, Run

DIMENSIONS = 6
KEYS = ("per_image_auc", "consensus_auc", "per_image_auc_masked", "motion_error_deg", "motion_error_mean_deg")


def command(*words: object) -> dict:
    """Seconds and the most memory, in GB, of a command of this program, and what it printed."""
    read, write = os.pipe()
    start = time.perf_counter()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "morphem", *map(str, words)],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)],
    )
    os.close(write)
    with os.fdopen(read) as output:
        text = output.read()
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{words}: ended with {os.waitstatus_to_exitcode(status)}")
    told = {"seconds": time.perf_counter() - start, "cpu": usage.ru_utime + usage.ru_stime}
    return told | {"GB": usage.ru_maxrss / 1e6, "text": text}


def fitted(folder: Path, run: Path, *words: object) -> dict:
    """The cost of a fit, and every score of it."""
    method, *options = words
    cost = command("fit", method, folder / "particles.star", "-o", run, *options)
    scores = json.loads(command("evaluate", run, "--truth", folder, "--json")["text"])
    return scores | {key: cost[key] for key in ("seconds", "cpu", "GB")}


def state_ceiling(folder: Path) -> float:
    """Mean AUC of back-projections of the images of each true state, over the images that are scored."""
    known, dataset = truth.Truth.open(folder), Dataset.open(Source(folder / "particles.star"))
    weight_nw = (known.state_n[:, None] == np.arange(len(known.maps))).astype(float)
    windows = list(reconstruct_windows(dataset, dataset.halves(0), weight_nw))
    pick = known.state_n[np.unique(np.arange(truth.SCORED) * len(dataset) // truth.SCORED)]
    return float(truth._areas((windows[state].map_zyx for state in pick), known, pick).mean(0)[0])


@torch.inference_mode()
def class_ceiling(folder: Path) -> np.ndarray:
    """The likeliest true map of every image, under the true proportions."""
    known, dataset = truth.Truth.open(folder), Dataset.open(Source(folder / "particles.star"))
    maps = torch.from_numpy(np.stack([known.map(state) for state in range(len(known.maps))]))
    volume, estep = LinearVolume.of(maps, dataset.lattice.radius), Subspaces(len(maps), 0)
    estep.prior_h = torch.from_numpy(np.bincount(known.state_n, minlength=len(maps)) / len(dataset))
    batches = dataset.batches(32)
    return np.concatenate([estep(seen, volume, ImageModel()).logw_bh.argmax(1).numpy() for seen in batches])


def hinge(scratch: Path, options: argparse.Namespace) -> None:
    names = "seconds", "cpu", "GB", "motion", "mean", "AUC", "kernel", "consensus", "states"
    print(f"{'molecule':>8}" + "".join(f"{name:>10}" for name in names))
    for molecule in options.molecules:
        folder, run = scratch / f"hinge{molecule}", scratch / f"run{molecule}"
        shape = {"images": options.images, "box": options.box, "pixel_size": 192 / options.box}
        simulate(folder, Simulation(kind="hinge", snr=0.1, molecule_seed=molecule, seed=molecule, **shape))
        row = fitted(folder, run, "variability", "--latent-dim", DIMENSIONS, *options.more)
        kernel = json.loads(command("evaluate", run, "--truth", folder, "--decoder", "kernel", "--json")["text"])
        values = "".join(f"{row[name]:>10.2f}" for name in ("seconds", "cpu", "GB", *KEYS[3:]))
        scores = row["per_image_auc"], kernel["per_image_auc"], row["consensus_auc"], state_ceiling(folder)
        print(f"{molecule:>8}{values}" + "".join(f"{score:>10.4f}" for score in scores), flush=True)


def classes(scratch: Path, options: argparse.Namespace) -> None:
    folder, count = scratch / options.what, {"assembly": 16, "molecules": 20}[options.what]
    shape = {"images": options.images, "box": options.box, "pixel_size": 192 / options.box}
    if options.what == "molecules":
        shape["states"] = count
    simulate(folder, Simulation(kind=options.what, snr=0.1, **shape))
    row = fitted(folder, scratch / "run", "classify", "-K", count, *options.more)
    true_n = truth.Truth.open(folder).state_n
    found_n, best_n = Ensemble.open(scratch / "run").weight_nc.argmax(1), class_ceiling(folder)
    found, best = adjusted_rand_score(true_n, found_n), adjusted_rand_score(true_n, best_n)
    print(f"{options.what}, {options.images:,} images, {len(np.unique(true_n))} states: ", end="")
    print(
        f"adjusted Rand index {found:.4f}, with the true maps {best:.4f}; {row['seconds']:.0f} s, {row['GB']:.2f} GB; ",
        end="",
    )
    print(f"AUC {row['per_image_auc']:.4f}, consensus {row['consensus_auc']:.4f}", flush=True)


def ribosome(scratch: Path, options: argparse.Namespace) -> None:
    folder = peers.folder("MORPHEM_DATA", "relion70S") / "relion70S"
    row = fitted(folder, scratch / "run", "variability", "--latent-dim", 4, *options.more)
    known, ensemble = truth.Truth.open(folder), Ensemble.open(scratch / "run")
    r_d = [abs(np.corrcoef(z_n, known.state_n)[0, 1]) for z_n in ensemble.z_nq.T]
    print("relion70S: correlation with the lobe's step " + ", ".join(f"{r:.3f}" for r in r_d), end="; ")
    print(", ".join(f"{key} {row[key]:.4f}" for key in KEYS[:3]) + f"; {row['seconds']:.0f} s", flush=True)


def size(scratch: Path, options: argparse.Namespace) -> None:
    names = "seconds", "cpu", "sweeps", "G madd", "G madd/s", "GB", "counted GB"
    print(f"{'images':>8}{'box':>5}" + "".join(f"{name:>11}" for name in names))
    for images, box in (map(int, one.split("x")) for one in options.sizes):
        folder = scratch / f"{images}x{box}"
        simulate(folder, Simulation(images=images, box=box, pixel_size=192 / box, snr=0.1))
        words = "fit", "variability", folder / "particles.star", "-o", scratch / f"run{images}x{box}"
        cost = command(*words, "--latent-dim", DIMENSIONS, *options.more)
        swept = [line for line in Run(words[-1], Compute()).history() if "radius" in line]
        seconds, counted = sum(line["seconds"] for line in swept), sum(map(multiply_adds, swept)) / 1e9
        told = cost["seconds"], cost["cpu"], seconds, counted, counted / seconds
        memory = cost["GB"], needed(images, box, swept) / 1e9
        values = "".join(f"{value:>11.1f}" for value in told) + "".join(f"{value:>11.2f}" for value in memory)
        print(f"{images:>8}{box:>5}{values}", flush=True)


def multiply_adds(line: dict) -> float:
    """Of a sweep: sampling, Gram matrix, residual, insertion."""
    features, samples = DIMENSIONS + 1, np.pi / 2 * line["radius"] ** 2
    pairs = features * (features + 1) / 2
    each = 16 * features + 2 * pairs + 2 * features**2 + 8 * (2 * features + pairs)
    return line["images"] * samples * each


def needed(images: int, box: int, swept: list[dict]) -> float:
    """Bytes: packed images, complex64, and two half-sets' sums at the last radius, float32."""
    features, radius = DIMENSIONS + 1, swept[-1]["radius"]
    channels = 2 * features + features * (features + 1) / 2
    return images * np.pi / 2 * (box / 2 - 1) ** 2 * 8 + 2 * 4 * channels * (2 * radius + 3) ** 2 * (radius + 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hinge", "assembly", "molecules", "relion70S", "size"))
    parser.add_argument("--molecules", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--images", type=int)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--sizes", nargs="+", default=["5000x64", "10000x128", "100000x64"])
    options, options.more = parser.parse_known_args()
    options.images = options.images or (5000 if options.what == "hinge" else 20_000)
    with tempfile.TemporaryDirectory() as scratch:
        {"hinge": hinge, "relion70S": ribosome, "size": size}.get(options.what, classes)(Path(scratch), options)


if __name__ == "__main__":
    main()
