"""Where a method stops working, and what `morphem validate` says there: a hinge under ever worse conditions.

    python bench/when_it_fails.py [--method variability] [--sweeps snr images pose_error latent_dim views] [--draw]

Every run is a set of its own (32 px of 6 Å, 3,000 images, SNR 0.1, z of 4 but where that is what changes), fitted,
scored against the truth and validated; for `vae`, which takes minutes each, every other condition. Results go to
bench/results/when_it_fails.json, a record a run; `--draw` turns all that it holds into the tables of
docs/when-it-fails.md and its figure, without running anything.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "when_it_fails.json"
MORPHEM = (sys.executable, "-m", "morphem")
BASE = {"images": 3000, "box": 32, "pixel-size": 6, "snr": 0.1}
SWEEPS = {
    "snr": ("snr", (0.003, 0.01, 0.03, 0.1, 0.3)),
    "images": ("images", (100, 300, 1000, 3000, 10000)),
    "pose_error": ("rotation-error", (0, 3, 6, 12, 24)),
    "latent_dim": ("latent-dim", (1, 2, 4, 8, 12)),
    "views": ("view-preference", (0, 1, 2, 4, 8)),
}
TITLES = {
    "snr": "SNR",
    "images": "Images",
    "pose_error": "Error of rotations (°)",
    "latent_dim": "Dimensions of z",
    "views": "Preference ν of views",
}
MARKS = {"holds": "o", "doubtful": "^", "fails": "X"}
DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
METHODS = {"variability": (), "vae": ("--epochs", 10, "--width", 128, "--map-every", 0)}


def run(*words: object) -> str:
    done = subprocess.run([*MORPHEM, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words[:2]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def record(method: str, sweep: str, value: float, seed: int) -> dict:
    """One condition: error of the motion, verdict and the numbers of the checks."""
    option, latent_dim = SWEEPS[sweep][0], 4
    told = BASE | ({option: value} if sweep != "latent_dim" else {})
    latent_dim = value if sweep == "latent_dim" else latent_dim
    with tempfile.TemporaryDirectory() as scratch:
        folder, start = Path(scratch), time.perf_counter()
        settings = [word for name, number in told.items() for word in (f"--{name}", number)]
        run("simulate", folder / "set", *settings, "--seed", seed, "--molecule-seed", seed)
        where = folder / "set" / "particles.star", "-o", folder / "run"
        run("fit", method, *where, "--latent-dim", latent_dim, *METHODS[method], "--seed", seed, "--threads", 1)
        scores = json.loads(run("evaluate", folder / "run", "--truth", folder / "set", "--json"))
        found = json.loads(run("validate", folder / "run", "--json", "--threads", 1, "--seed", seed).splitlines()[-1])
    checks = {check["name"]: {"verdict": check["verdict"], "value": check["value"]} for check in found["checks"]}
    numbers = {"motion_error_deg": scores["motion_error_deg"], "auc": scores["per_image_auc"]}
    numbers |= {"consensus_auc": scores["consensus_auc"], "seconds": round(time.perf_counter() - start, 1)}
    return {"method": method, "sweep": sweep, "value": value, "seed": seed, **numbers} | {
        "verdict": found["verdict"],
        "sentence": found["sentence"],
        "checks": checks,
    }


def known() -> list[dict]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else []


def keep(one: dict) -> None:
    key = ("method", "sweep", "value", "seed")
    others = [other for other in known() if [other[k] for k in key] != [one[k] for k in key]]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([*others, one], indent=1))


def draw(records: list[dict]) -> None:
    """docs/images/when-it-fails.png, and the tables of docs/when-it-fails.md."""
    from morphem.analysis import plots

    plots.save(curves(records), DOCS / "images" / "when-it-fails.png")
    page = (DOCS / "when-it-fails.md").read_text()
    head, _, tail = page.partition(BEGIN)
    tables = "\n\n".join(table(records, sweep) for sweep in SWEEPS)
    (DOCS / "when-it-fails.md").write_text(f"{head}{BEGIN}\n\n{tables}\n\n{END}{tail.partition(END)[2]}")


def curves(records: list[dict]):
    """Motion error and gain against every condition, with the verdicts as marks."""
    from matplotlib.figure import Figure

    from morphem.analysis import plots

    return plots.styled(_curves)(Figure(figsize=(9.5, 4.4)), records)


def _curves(figure, records: list[dict]):
    rows = figure.subplots(2, len(SWEEPS), sharex="col", sharey="row")
    for column, (sweep, (_, values)) in enumerate(SWEEPS.items()):
        for method, colour, dash in (("variability", "#0072B2", "-"), ("vae", "#D55E00", "--")):
            own = sorted((r for r in records if (r["sweep"], r["method"]) == (sweep, method)), key=lambda r: r["value"])
            place = [values.index(one["value"]) for one in own]
            for axes, number in zip(rows[:, column], (motion, gain), strict=True):
                axes.plot(place, [number(one) for one in own], color=colour, linestyle=dash, label=method, zorder=1)
                for x, one in zip(place, own, strict=True):
                    axes.plot(x, number(one), MARKS[one["verdict"]], color=colour, markersize=6, zorder=2)
        rows[1, column].set(
            xticks=range(len(values)), xticklabels=[f"{value:g}" for value in values], xlabel=TITLES[sweep]
        )
        rows[1, column].tick_params("x", labelrotation=45)
    rows[0, 0].set_ylim(0, 105)
    rows[1, 0].set_yscale("symlog", linthresh=0.1)
    rows[0, 0].set_ylabel("Motion error (°)")
    rows[1, 0].set_ylabel("Gain (nats an image)")
    for verdict, mark in MARKS.items():
        rows[0, -1].plot([], [], mark, color="#4a5560", label=verdict)
    figure.legend(*rows[0, -1].get_legend_handles_labels(), loc="upper center", ncols=6, frameon=False)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 0.92))
    return figure


def motion(one: dict) -> float:
    return one["motion_error_deg"]


def gain(one: dict) -> float:
    value = one["checks"]["heterogeneity"]["value"]
    return 0.0 if value is None else value


def table(records: list[dict], sweep: str) -> str:
    """One sweep: a row a condition and method."""
    lines = [
        f"| {TITLES[sweep]} | method | motion error, ° | AUC | of the consensus | gain, nats | verdict | what fails |"
    ]
    lines.append("|" + "---|" * 8)
    order = list(METHODS)
    for one in sorted(
        (r for r in records if r["sweep"] == sweep), key=lambda r: (order.index(r["method"]), r["value"])
    ):
        numbers = f"{motion(one):.1f} | {one['auc']:.3f} | {one['consensus_auc']:.3f} | {gain(one):.2f}"
        doubt = ", ".join(name for name, check in one["checks"].items() if check["verdict"] == "fails")
        lines.append(f"| {one['value']:g} | {one['method']} | {numbers} | {one['verdict']} | {doubt} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="variability")
    parser.add_argument("--sweeps", choices=SWEEPS, nargs="+", default=list(SWEEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    if options.draw:
        draw(known())
        return
    for sweep in options.sweeps:
        for value in SWEEPS[sweep][1][:: 2 if options.method == "vae" else 1]:
            for seed in options.seeds:
                one = record(options.method, sweep, value, seed)
                keep(one)
                motion, gain = one["motion_error_deg"], one["checks"]["heterogeneity"]["value"]
                print(
                    f"{options.method} {sweep} {value}: {motion:.1f}°, gain {gain or np.nan:.2f}, {one['verdict']}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
