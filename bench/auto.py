"""`fit auto` against every method that competes in it, on the same images: maps' accuracy and time.

    python bench/auto.py [--kinds hinge linker assembly molecules] [--images 5000] [--box 32] [--snr 0.1] [--seed 0]

The score is the per-image AUC against the truth by the decoder that `fit auto` names; of each method alone, the better
of its two decoders, which a user would not know.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MORPHEM = (sys.executable, "-m", "morphem")
ALONE = ("variability", "classify", "mixture")


def run(*words: object) -> tuple[str, float]:
    start = time.perf_counter()
    done = subprocess.run([*MORPHEM, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words[:2]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout, time.perf_counter() - start


def auc(folder: Path, truth: Path, decoder: str) -> float:
    return json.loads(run("evaluate", folder, "--truth", truth, "--decoder", decoder, "--json")[0])["per_image_auc"]


def named(folder: Path) -> str:
    """The decoder that the run's history names."""
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return next((record["decoder"] for record in reversed(records) if "decoder" in record), "model")


def row(kind: str, folder: Path, options: argparse.Namespace) -> str:
    shape = "--images", options.images, "--box", options.box, "--pixel-size", 192 / options.box, "--snr", options.snr
    run("simulate", folder / "set", "--kind", kind, *shape, "--seed", options.seed, "--molecule-seed", options.seed)
    told = []
    for name in ("auto", *ALONE):
        out = folder / name
        seconds = run("fit", name, folder / "set" / "particles.star", "-o", out, "--threads", 1)[1]
        decoders = (named(out),) if name == "auto" else ("model", "kernel")
        best = max((auc(out, folder / "set", decoder), decoder) for decoder in decoders)
        told.append((best[0], f"{best[0]:.4f} {best[1]:<6} {seconds:5.0f} s"))
    won = method(folder / "auto")
    difference = told[0][0] - max(value for value, _ in told[1:])
    return f"{kind:<10}" + "".join(f"{text:<24}" for _, text in told) + f"{won:<12}{difference:+.4f}"


def method(folder: Path) -> str:
    import yaml

    return yaml.safe_load((folder / "config.yaml").read_text())["method"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["hinge", "linker", "assembly", "molecules"])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--box", type=int, default=32)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'':<10}" + "".join(f"{name:<24}" for name in ("auto", *ALONE)) + "auto took   against the best")
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as scratch:
            print(row(kind, Path(scratch), options), flush=True)


if __name__ == "__main__":
    main()
