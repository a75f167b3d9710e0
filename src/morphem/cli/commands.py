"""Commands that start from a run: flags from the dataclasses of what they call, results on stdout."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from morphem.analysis import Analysis
from morphem.cli.fit import COMPUTE, fit_method, flat
from morphem.data.simulation import Simulation
from morphem.data.synthetic import simulate as write_simulation
from morphem.ensemble import Ensemble
from morphem.evaluation import Validation
from morphem.run import Compute, Output, progress

OVERWRITE = Annotated[bool, Parameter(negative="")]


def simulate(
    folder: Path,
    *,
    config: Annotated[Simulation, flat("Simulation", 1)] = Simulation(),  # noqa: B008
    overwrite: OVERWRITE = False,
) -> None:
    """Make particle images of a molecule that moves, with the truth beside them.

    Parameters
    ----------
    folder
        Folder to write: particles.star, particles.mrcs, and the true maps, labels and poses.
    overwrite
        Replace a simulation that the folder holds.
    """
    with progress(config.images, "Simulating") as bar:
        write_simulation(folder, config, bar.advance, overwrite)
    print(f"Finished: {folder / 'particles.star'}\nNext: morphem fit vae {folder / 'particles.star'} -o RUN")


def analyze(
    run: Path,
    *,
    settings: Annotated[Analysis, flat("Analysis", 1)] = Analysis(),  # noqa: B008
    compute: Annotated[Compute, COMPUTE] = Compute(),  # noqa: B008
) -> None:
    """PCA, UMAP, clusters, populations, maps and traversals of a run, plots and a report.

    Parameters
    ----------
    run
        Folder of a finished run.
    """
    from morphem.analysis import analyze as write_analysis

    ensemble = Ensemble.open(run)
    ensemble.volume.to(compute.apply())
    print(f"Finished: {write_analysis(ensemble, settings, compute.seed)}")


def evaluate(
    run: Path,
    *,
    truth: Path,
    decoder: Literal["model", "kernel"] = "model",
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**32))] = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Score a run against the truth it was simulated from.

    Parameters
    ----------
    run
        Folder of a finished run.
    truth
        Folder that `morphem simulate` wrote, or one laid out like it.
    decoder
        What turns z into a map: the run's own model, or local regression on its images.
    seed
        Of the clustering and the halves of images.
    as_json
        Print one line of JSON.
    """
    from morphem.evaluation.truth import evaluate as score

    scores = score(Ensemble.open(run), truth, decoder, seed)
    if as_json:
        print(json.dumps(scores))
        return
    for name, value in scores.items():
        print(
            f"{name:<34}{f'{value:.4f}' if isinstance(value, float) else 'not available' if value is None else value}"
        )


def validate(
    run: Path,
    *,
    settings: Annotated[Validation, flat("Validation", 1)] = Validation(),  # noqa: B008
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    compute: Annotated[Compute, COMPUTE] = Compute(),  # noqa: B008
) -> None:
    """Ask whether a run is to be believed, without knowing the truth: a verdict with its reasons.

    Parameters
    ----------
    run
        Folder of a finished run.
    as_json
        Print one line of JSON.
    """
    from morphem.analysis import verdicts, write_report
    from morphem.evaluation.validation import FOLDER
    from morphem.evaluation.validation import validate as judge

    ensemble = Ensemble.open(run)
    ensemble.volume.to(compute.apply())
    told = judge(ensemble, settings, compute)
    verdicts.draw(run / FOLDER)
    if (run / "analysis" / "page.json").is_file():
        write_report(ensemble)
    if as_json:
        print(json.dumps(told))
        return
    for check in told["checks"]:
        print(f"{check['verdict']:<12}{check['title']}{_number(check)}\n{'':<12}{check['sentence']}")
    print(f"\nVerdict: {told['verdict']}. {told['sentence']}")


def _number(check: dict[str, Any]) -> str:
    """A check's number with its interval, in brackets; nothing where it has none."""
    if check["value"] is None:
        return ""
    interval = "" if check["low"] is None else f", {check['low']:.3g} to {check['high']:.3g}"
    return f" ({check['value']:.3g} {check['unit']}{interval})"


def demo(
    *,
    output: Annotated[Path, Parameter(alias=["-o", "--outdir"])] = Path("demo"),
    overwrite: OVERWRITE = False,
    compute: Annotated[Compute, COMPUTE] = Compute(),  # noqa: B008
) -> None:
    """Simulate a moving molecule, fit it, analyse it and write a report: the whole program in two minutes.

    Parameters
    ----------
    output
        Folder to write: simulation/ and run/.
    overwrite
        Replace an earlier demo.
    """
    from morphem.analysis import analyze as write_analysis
    from morphem.data.dataset import Source
    from morphem.methods import vae

    simulate(output / "simulation", config=replace(DEMO, seed=compute.seed), overwrite=overwrite)
    source = Source(output / "simulation" / "particles.star")
    settings = vae.Config(latent_dim=6, epochs=8, width=128)
    ensemble = fit_method("vae", source, settings, Output(output / "run", overwrite=overwrite), compute)
    report = write_analysis(ensemble, Analysis(clusters=10, axes=2), compute.seed)
    evaluate(ensemble.folder, truth=output / "simulation")
    print(f"\nOpen this in a browser: {report}")


DEMO = Simulation(kind="hinge", images=2500, box=48, pixel_size=4.0, snr=1.0)
