"""`morphem fit METHOD`: one command for each registered method, its flags generated from the method's `Config`."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from morphem import methods
from morphem.cli import relion_job
from morphem.data.dataset import Dataset, Source
from morphem.ensemble import CONFIG, FILES
from morphem.errors import InputError
from morphem.evaluation import Auto
from morphem.io.files import refuse_file
from morphem.methods import METHODS, load, summary
from morphem.run import Compute, Output, Run


def flat(title: str, order: int) -> Parameter:
    """The fields of a dataclass as flags, under a title in the help."""
    return Parameter(name="*", group=Group(title, sort_key=order))


IMAGES, OUTPUT, METHOD, COMPUTE = flat("Images", 1), flat("Output", 2), flat("Method", 3), flat("Computing", 4)
LEFT_BY_RUNS = (
    *FILES,
    "history.jsonl",
    "run.log",
    "citations.bib",
    "report.html",
    "maps",
    "particles_mirror.star",
    "checkpoints",
    "analysis",
    "validation",
    "candidates",
)


def __getattr__(name: str) -> Callable[..., None]:
    """The command of a method, made when it is first asked for."""
    if name not in METHODS:
        raise AttributeError(name)
    return _command(name)


def auto(
    source: Annotated[Source, IMAGES],
    *,
    output: Annotated[Output, OUTPUT],
    config: Annotated[Auto, METHOD] = Auto(),  # noqa: B008
    compute: Annotated[Compute, COMPUTE] = Compute(),  # noqa: B008
) -> None:
    """Let the fast methods compete, fit the one that unseen images are likeliest under, and say why."""
    from morphem.analysis.decoders import better_decoder
    from morphem.evaluation.auto import fit as compete

    if output.resume:
        raise InputError("--resume: a competition starts anew; give --overwrite, or --resume the winner's own command")
    device = compute.apply()
    check_output(output)
    dataset = Dataset.open(source, config.radius, device)
    for name in config.methods:
        methods.check(dataset, config.of(name))
    if output.overwrite:
        make_room(output.output)
    run = Run(output.output, compute)
    ensemble = compete(dataset, config, run)
    if ensemble.latent_dim:
        verdict = better_decoder(ensemble, seed=compute.seed)
        run.log(verdict.sentence)
        verdict.record(run.folder)
    print(f"Finished: {output.output}\nNext: morphem analyze {output.output}; morphem validate {output.output}")


def _command(name: str) -> Callable[..., None]:
    module = load(name)

    def fit(
        source: Annotated[Source, IMAGES],
        *,
        output: Annotated[Output, OUTPUT],
        config: Annotated[module.Config, METHOD] = module.Config(),  # type: ignore[name-defined]  # noqa: B008
        compute: Annotated[Compute, COMPUTE] = Compute(),  # noqa: B008
    ) -> None:
        fit_method(name, source, config, output, compute)

    fit.__doc__ = f"{summary(name)} {module.Config.__doc__}"
    return fit


def fit_method(name: str, source: Source, config: Any, output: Output, compute: Compute) -> Any:
    """Check everything, then make the run's folder, then fit; the `Ensemble`."""
    device = compute.apply()
    check_output(output)
    dataset = Dataset.open(source, config.radius, device, require_poses=not methods.finds_poses(name))
    methods.check(dataset, config)
    if output.overwrite:
        make_room(output.output)
    ensemble = methods.fit(name, dataset, config, Run(output.output, compute, output.resume))
    print(f"Finished: {output.output}\nNext: morphem analyze {output.output}; morphem validate {output.output}")
    return ensemble


def check_output(output: Output) -> None:
    """Refuse a folder that holds anything but a run, and a run unless the user said what is to become of it."""
    folder = output.output
    if output.overwrite and output.resume:
        raise InputError("--overwrite --resume: one replaces the run, the other goes on with it; give one of them")
    refuse_file(folder)
    held = {path.name for path in folder.glob("[!.]*")}
    if relion_job.made(folder):
        held &= set(LEFT_BY_RUNS)
    foreign = held - set(LEFT_BY_RUNS if CONFIG in held else ())
    if foreign and not (CONFIG in held and output.resume):
        raise InputError(f"{folder}: holds {min(foreign)}, which no run wrote; give an empty or a new folder")
    if held and not (output.overwrite or output.resume):
        raise InputError(
            f"{folder}: holds another run; give another folder, --resume to go on with it, or --overwrite to replace it"
        )


def make_room(folder: Path) -> None:
    """Take away the run that --overwrite replaces."""
    for name in LEFT_BY_RUNS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
