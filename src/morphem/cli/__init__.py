"""The command line. Nothing heavy is imported before the command that needs it is called.

Exit codes: 0 done · 1 failed while running · 2 wrong input · 3 no believable result · 130 Ctrl-C · 143 SIGTERM.
"""

import os
import signal
import sys
import traceback
from collections.abc import Iterable
from typing import Any, get_args

import cyclopts
from cyclopts import App, Argument, CoercionError, Parameter

from morphem import __version__
from morphem.cli import neighbours, relion_job, unloaded
from morphem.errors import MorphemError
from morphem.methods import METHODS, summary


def whole_numbers(_app: App, _commands: tuple[str, ...], arguments: Iterable[Argument]) -> None:
    """Refuse a fraction where a whole number is wanted; the parser would round it."""
    for argument in arguments:
        for token in argument.tokens if int in _kinds(argument.hint) else ():
            if "." in token.value:
                raise CoercionError(f'"{token.value}" found, expected a whole number.', argument=argument, token=token)


def _kinds(hint: Any) -> set[Any]:
    """What a type is made of."""
    return {hint}.union(*map(_kinds, get_args(hint)))


app = App(
    name="morphem",
    help="The ensemble of shapes a molecule takes, from cryo-EM particle images.",
    version=f"morphem {__version__}",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    suppress_keyboard_interrupt=False,
    config=whole_numbers,
    help_epilogue="On any command: --debug shows the full traceback of an error.",
)
COMMANDS = {
    "commands": {
        "demo": "Simulate a moving molecule, fit it, analyse it and write a report: the whole program in two minutes.",
        "simulate": "Make particle images of a molecule that moves, with the truth beside them.",
        "analyze": "PCA, UMAP, clusters, populations, maps and traversals of a run, plots and a report.",
        "validate": "Ask whether a run is to be believed, without knowing the truth: a verdict with its reasons.",
        "evaluate": "Score a run against the truth it was simulated from.",
    },
    "decoding": {
        "decode": "Maps from latent coordinates, images, or a path between two images.",
    },
    "particles": {
        "inspect": "What a particle table and its images hold, and what is wrong with them.",
        "downsample": "Fourier-crop particle images to a smaller box.",
        "export": "Particles of chosen clusters, regions or rows, poses, and files for other programs.",
    },
}
"""File of this folder -> command -> what it does."""
for module, helps in COMMANDS.items():
    for name, help_text in helps.items():
        app.command(f"morphem.cli.{module}:{name}", name=name, help=help_text)

fit = App(
    name="fit", help="Fit a method to particle images with poses; `morphem fit METHOD --help` lists its settings."
)
fit.command(
    "morphem.cli.fit:auto",
    name="auto",
    help="Let the fast methods compete, fit the one that unseen images are likeliest under, and say why.",
)
for name in METHODS:
    fit.command(f"morphem.cli.fit:{name}", name=name, help=summary(name))
app.command(fit)
app.command("morphem.cli.fit:backproject", name="backproject", help="Short for `fit backproject`.")


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; an error is one sentence on stderr."""
    if arguments is None:
        arguments = sys.argv[1:]
        unloaded.where_help_is_asked(arguments)
    debug, words = "--debug" in arguments, [word for word in arguments if word != "--debug"]
    signal.signal(signal.SIGTERM, _terminate)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # idle threads soon sleep: twice as fast where others compute too
    try:
        with relion_job.reporting(words):
            words = neighbours.translate(relion_job.translate(words))
            app(words, exit_on_error=False, print_error=False)
    except (Exception, KeyboardInterrupt) as error:
        explained = _explain(error)
        if explained is None:
            raise
        if debug:
            traceback.print_exc()
        code, sentence = explained
        print(f"morphem: {sentence}", file=sys.stderr)
        sys.exit(code)


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def _terminate(*_: object) -> None:
    raise Terminated


def _explain(error: BaseException) -> tuple[int, str] | None:
    """Exit code and sentence of an error; None for one that is a mistake of this program."""
    if isinstance(error, MorphemError):
        return error.exit_code, " ".join(str(error).split())
    if isinstance(error, cyclopts.CycloptsError):
        command = " ".join(("morphem", *(error.command_chain or ())))
        return 2, f"{' '.join(str(error).split())} See `{command} --help`."
    if isinstance(error, KeyboardInterrupt):
        code = 143 if isinstance(error, Terminated) else 130
        return code, "stopped; a run that has checkpoints goes on with --resume"
    if isinstance(error, OSError):
        return 1, f"{error.filename or 'a file'}: {error.strerror or error}; see to it and start again"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return 1, "out of memory; use fewer images, a smaller --radius or a smaller --batch-size"
    return None
