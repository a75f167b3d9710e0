"""Words of cryoDRGN's command line, so that its users can type what they know.

Most of its options are options here too, under the same name or as another name of a setting. This table holds the
rest: what is called otherwise, takes other values, is not needed, or cannot be done.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from morphem.errors import InputError
from morphem.run import NOTICE, say

SOME = -1
"""As many numbers as follow, joined by commas."""


@dataclass(frozen=True)
class Word:
    """What to make of one word: `ours` in its place and its values behind it, a notice, or a refusal."""

    ours: str = ""
    values: int = 1
    """How many values follow it."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Its value -> ours, nothing where ours goes without saying."""
    idle: str = ""
    """Why it is not needed."""
    refused: str = ""
    """Why no value, or none but those in `names`, can be obeyed, and what to do."""


def _flag(ours: str) -> Word:
    return Word(ours, 0)


def _idle(why: str, values: int = 0) -> Word:
    return Word(values=values, idle=why)


def _only(value: str, why: str) -> Word:
    return Word(names={value: ""}, refused=f"{why}; leave it out")


def _refused(why: str) -> Word:
    return Word(refused=why)


TILT_WORDS = "tilt ntilts random-tilts force-ntilts t-emb-dim tlayers tdim dose-per-tilt angle-per-tilt"
TILTS = dict.fromkeys(
    ["-d", "-a", *(f"--{word}" for word in TILT_WORDS.split())],
    _refused("tilt series are not fitted; give single particles and leave it out"),
)
IMAGES = TILTS | {
    "--uninvert-data": _flag("--contrast dark"),
    "--lazy": _idle("images stay on disk where they do not fit in memory"),
    "--max-threads": _idle("--threads limits all threads", 1),
    "--num-workers": _idle("one thread reads ahead", 1),
    "--shuffler-size": _idle("images are shuffled by row, wherever they are", 1),
    "--log-interval": _idle("progress is shown all the time", 1),
    "--verbose": _idle("run.log says it all"),
    "-v": _idle("run.log says it all"),
}
TRAINING = IMAGES | {
    "--enc-dim": Word("--width"),
    "--dec-dim": Word("--width"),
    "--dim": Word("--width"),
    "--enc-layers": Word("--layers"),
    "--dec-layers": Word("--layers"),
    "--pe-type": Word(
        "--encoding",
        names={
            "geom_ft": "geometric",
            "geom_full": "geometric_full",
            "geom_lowf": "low",
            "geom_nohighf": "no_high",
            "linear_lowf": "linear",
        },
    ),
    "--no-amp": _flag("--precision float32"),
    "--amp": _idle("--precision auto takes what is faster"),
    "--load": Word(names={"latest": "--resume"}, refused="a run goes on from its own last checkpoint; give --resume"),
    "--checkpoint": _idle("a checkpoint is written every epoch", 1),
    "--no-analysis": _idle("`morphem analyze` is a command of its own"),
    "--encode-mode": _only("resid", "residual layers, or --encoder conv for convolutions"),
    "--domain": _only("fourier", "maps are fitted as Fourier transforms"),
    "--activation": _only("relu", "the networks' activation is ReLU"),
    "--wd": _only("0", "there is no weight decay"),
    "--shuffle-seed": _refused("--seed sets the order too; give --seed"),
    "--no-window": _refused("images are always windowed, from 0.85 to 0.99 of the half box; leave it out"),
    "--window-r": _only("0.85", "images are windowed from 0.85 to 0.99 of the half box"),
    "--norm": _refused("images are whitened by their own noise spectrum; leave it out"),
    "--beta-control": _refused("here it is --beta-schedule capacity, with --capacity in nats and its weight as --beta"),
    "--feat-sigma": _only("0.5", "the deviation of the gaussian encoding is fixed"),
    "--pe-dim": _refused("an encoding has half a box of frequencies; leave it out"),
    "--l-extent": _refused("coordinates are in Fourier pixels; leave it out"),
    "--enc-mask": _refused("the encoder sees a disc; give its radius in Fourier pixels as --encoder-radius"),
    "--use-real": _refused("--encoder chooses what the encoder sees; leave it out"),
    "--multigpu": _refused("one process uses one device; leave it out"),
    "--do-pose-sgd": _flag("--refine-poses both"),
    "--pretrain": _only("1", "poses are refined from the second epoch"),
    "--emb-type": _refused("poses have one parametrisation; leave it out"),
    "--pose-lr": _refused("poses have a step of their own; leave it out"),
}
BACKPROJECTION = IMAGES | {
    "-b": _idle("batches have a fixed size", 1),
    "--batch-size": _idle("batches have a fixed size", 1),
    "--ctf-alg": _only("mul", "images are multiplied by their CTF"),
    "--first": _refused("rows are chosen by a file; give --ind"),
    "--no-half-maps": _refused("half-maps are always made, the map's filter needs them; leave it out"),
    "--no-fsc-vals": _refused("the FSC is always computed, the map's filter needs it; leave it out"),
    "--reg-weight": _refused("the filter comes from the half-maps' FSC; leave it out"),
    "--output-sumcount": _refused("sums and weights are not written; leave it out"),
}
PIXEL = {name: _idle("maps have the run's pixel size", 1) for name in ("--Apix", "--apix")}
MAPS = {
    "--flip": _refused("maps are written as they were fitted; leave it out"),
    "--invert": _refused("maps are written with protein positive; leave it out"),
    "-d": _refused("the report's maps have the run's box; `morphem decode` has --map-box"),
    "--downsample": _refused("the report's maps have the run's box; `morphem decode` has --map-box"),
    "--crop": _refused("maps are written in the run's box; leave it out"),
    "--low-pass": _refused("maps are not filtered; fit with a smaller --radius, or filter them in ChimeraX"),
    "--vol-start-index": _only("1", "maps are counted from 1"),
}
BETWEEN = _refused("a path runs between two images; give --path FROM TO --frames N, or its points as --z-file")
WORDS: dict[str, dict[str, Word]] = {
    "fit": TRAINING,
    "backproject": BACKPROJECTION,
    "decode": MAPS
    | {
        "-z": Word("--z", SOME),
        "--zfile": Word("--z-file"),
        "-d": Word("--map-box"),
        "--downsample": Word("--map-box"),
        "--z-start": BETWEEN,
        "--z-end": BETWEEN,
        "-n": Word("--frames"),
        "-c": _idle("the run's folder holds its settings", 1),
        "--config": _idle("the run's folder holds its settings", 1),
        "--prefix": _refused("maps are called map_001.mrc …; leave it out"),
    },
    "analyze": MAPS
    | PIXEL
    | {
        "--ksample": Word("--clusters"),
        "--pc": Word("--axes"),
        "--n-per-pc": Word("--frames"),
        "--skip-umap": _flag("--no-umap"),
        "--skip-vol": _refused("maps are part of the report; give --clusters 1 --axes 0 for the fewest"),
        "-o": _refused("the report goes into the run's folder; leave it out"),
        "--outdir": _refused("the report goes into the run's folder; leave it out"),
    },
    "downsample": {
        "--outfile": Word("--output"),
        "--outdir": _refused("the stack goes beside the table; give the table's folder in --output"),
        "--chunk": _refused("one stack is written; leave it out"),
        "--is-vol": _refused("maps are not downsampled, particles are; leave it out"),
        "-b": _idle("batches have a fixed size", 1),
        "--max-threads": IMAGES["--max-threads"],
    },
}
"""Command -> its neighbour's words."""


def translate(words: list[str]) -> list[str]:
    """The neighbour's words in ours, with notices. Errors: InputError, in one sentence, where one cannot be obeyed."""
    table = words_of(words)
    said: dict[str, tuple[str, list[str]]] = {}
    rest, translated = _separated(words, table), list[str]()
    while rest:
        word = rest.pop(0)
        if word not in table:
            translated.append(word)
            continue
        values = _values(table[word], rest)
        ours = _ours(word, values, table[word])
        if not _repeated(word, ours, said):
            translated += ours
    return translated


def words_of(words: list[str]) -> dict[str, Word]:
    """The table of a command; `fit backproject` is `backproject`."""
    command = words[1] if words[:1] == ["fit"] and words[1:2] == ["backproject"] else "".join(words[:1])
    return WORDS.get(command, {})


def _separated(words: list[str], table: dict[str, Word]) -> list[str]:
    """`--word=value` of the table's words as two."""
    return [part for word in words for part in (word.split("=", 1) if word.split("=")[0] in table else [word])]


def _values(entry: Word, rest: list[str]) -> list[str]:
    """The values of a word, taken off what follows it."""
    count = entry.values
    if count == SOME:
        count = next((n for n, text in enumerate(rest) if not re.fullmatch(r"[-+.,eE\d]+", text)), len(rest))
    values, rest[:count] = rest[:count], []
    return [",".join(values)] if entry.values == SOME and values else values


def _ours(word: str, values: list[str], entry: Word) -> list[str]:
    """What stands in the place of a word and its values."""
    if entry.refused and not (values and values[0] in entry.names):
        raise InputError(f"{' '.join([word, *values[: bool(entry.names)]])}: {entry.refused}")
    if entry.idle:
        say(f"{NOTICE}{word}: not needed, {entry.idle}")
        return []
    return [text for text in (*entry.ours.split(), *(entry.names.get(value, value) for value in values)) if text]


def _repeated(word: str, ours: list[str], said: dict[str, tuple[str, list[str]]]) -> bool:
    """Whether another word has said the same. Errors: InputError where it said something else of the same setting."""
    if not ours:
        return False
    former, value = said.setdefault(ours[0], (word, ours))
    if value != ours:
        raise InputError(f"{word} {ours[-1]}: {former} is {value[-1]}, and {ours[0]} sets both; give both one value")
    return former != word
