"""The main job on images made by another program: fit, analyse and evaluate from the STAR file, through the commands.

    MORPHEM_DATA=... python bench/main_job.py [--seeds 0 1] [options of `morphem fit vae`]

MORPHEM_DATA names the folder that holds relion70S: 2,000 images of 64 px, projected by RELION from a 70S ribosome
whose lobe turns in ten steps, SNR 0.1, laid out as a truth folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers

KEYS = ("per_image_auc", "consensus_auc", "per_image_auc_masked", "per_conformation_auc", "neighbourhood_similarity")


def morphem(*words: object) -> tuple[str, float]:
    """What a command prints, and its wall time."""
    start = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "morphem", *map(str, words)], check=True, stdout=subprocess.PIPE)
    return ended.stdout.decode(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options, more = parser.parse_known_args()
    truth = peers.folder("MORPHEM_DATA", "relion70S") / "relion70S"
    with tempfile.TemporaryDirectory() as scratch:
        for seed in options.seeds:
            run = Path(scratch) / str(seed)
            _, fitted = morphem("fit", "vae", truth / "particles.star", "-o", run, "--seed", seed, *more)
            _, analysed = morphem("analyze", run)
            scores = json.loads(morphem("evaluate", run, "--truth", truth, "--json")[0])
            listed = ", ".join(f"{key} {scores[key]:.4f}" for key in KEYS)
            print(f"seed {seed}: fit {fitted:.0f} s, analyze {analysed:.0f} s; {listed}", flush=True)


if __name__ == "__main__":
    main()
