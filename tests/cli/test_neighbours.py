"""Command lines in cryoDRGN's words."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml

from morphem.cli import app, neighbours
from morphem.data.particles import Particles
from morphem.methods import METHODS

SAME = {
    "fit vae a.star -o out --zdim 8 -n 20 -b 16 --lr 1e-4 --beta 0.5 --seed 0 --pe-type gaussian": (
        "fit vae a.star -o out --zdim 8 -n 20 -b 16 --lr 1e-4 --beta 0.5 --seed 0 --encoding gaussian"
    ),
    "fit vae a.star --enc-dim 256 --enc-layers 3 --dec-dim 256 --dec-layers 3": "fit vae a.star --width 256 --layers 3",
    "fit vae a.star --uninvert-data --no-amp": "fit vae a.star --contrast dark --precision float32",
    "fit vae a.star --pe-type=geom_lowf --load latest": "fit vae a.star --encoding low --resume",
    "fit vae a.star --domain fourier --activation relu --wd 0 --encode-mode resid": "fit vae a.star",
    "fit vae a.star --window-r 0.85 --feat-sigma 0.5": "fit vae a.star",
    "fit backproject a.star --uninvert-data --ctf-alg mul": "fit backproject a.star --contrast dark",
    "backproject a.star -o out --uninvert-data": "backproject a.star -o out --contrast dark",
    "decode run -o out -z 0 -0.5 1e-3": "decode run -o out --z 0,-0.5,1e-3",
    "decode run -z 0,1 -o out": "decode run --z 0,1 -o out",
    "decode run --zfile z.txt --vol-start-index 1": "decode run --z-file z.txt",
    "decode run --path 0 5 -n 4": "decode run --path 0 5 --frames 4",
    "analyze run --ksample 9 --pc 2 --n-per-pc 5 --skip-umap": "analyze run --clusters 9 --axes 2 --frames 5 --no-umap",
    "downsample a.star -D 128 --outfile b.star": "downsample a.star -D 128 --output b.star",
    "simulate out --lazy -D 3": "simulate out --lazy -D 3",
    "fit": "fit",
    "": "",
}


@pytest.mark.parametrize("words", SAME)
def test_words_are_translated(words, capsys):
    assert neighbours.translate(words.split()) == SAME[words].split()
    assert capsys.readouterr().err == ""


NOT_NEEDED = {
    "fit vae a.star --lazy -n 3": "--lazy: not needed, images stay on disk",
    "fit vae --num-workers 4 a.star -n 3": "--num-workers: not needed, one thread",
    "fit vae a.star --amp -n 3": "--amp: not needed, --precision auto",
    "fit vae a.star --checkpoint 5 -n 3": "--checkpoint: not needed, a checkpoint is written every epoch",
    "fit vae --log-interval=1000 a.star -n 3": "--log-interval: not needed",
}


@pytest.mark.parametrize("words", NOT_NEEDED)
def test_words_without_effect_are_said(words, capsys):
    assert " ".join(neighbours.translate(words.split())) == "fit vae a.star -n 3"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"Notice: {NOT_NEEDED[words]}")


WRONG = {
    "fit vae {table} -o {out} --enc-dim 1024 --dec-dim 256": (
        "--dec-dim 256: --enc-dim is 1024, and --width sets both",
    ),
    "fit vae {table} -o {out} --ntilts 10": ("--ntilts: tilt series are not fitted",),
    "fit vae {table} -o {out} --load weights.5.pkl": ("--load weights.5.pkl: ", "give --resume"),
    "fit vae {table} -o {out} --encode-mode conv": ("--encode-mode conv: residual layers, or --encoder conv",),
    "fit vae {table} -o {out} --wd 0.1": ("--wd 0.1: there is no weight decay; leave it out",),
    "fit vae {table} -o {out} --norm 0 1": ("--norm: images are whitened",),
    "fit vae {table} -o {out} --multigpu": ("--multigpu: one process uses one device",),
    "fit vae {table} -o {out} --pe-type geom": ("--encoding", '"geom"', "Did you mean"),
    "fit vae {table} -o {out} --enc-dim": ("--width requires an argument",),
    "backproject {table} -o {out} --first 100": ("--first: rows are chosen by a file; give --ind",),
    "backproject {table} -o {out} --ctf-alg flip": ("--ctf-alg flip: images are multiplied by their CTF",),
    "backproject {table} -o {out} --enc-dim 4": ("Unknown option: --enc-dim",),
    "decode {run} -o {out} --z-start 0 --z-end 1": ("--z-start: ", "--path FROM TO", "--z-file"),
    "decode {run} -o {out} -z 0 0 --low-pass 8": ("--low-pass: maps are not filtered",),
    "analyze {run} -o {out}": ("-o: the report goes into the run's folder",),
}


@pytest.mark.parametrize("words", WRONG)
def test_65_words_that_cannot_be_obeyed_are_refused(refused, particles, run, tmp_path, words):
    refused(words.format(table=particles, run=run, out=tmp_path / "out").split(), WRONG[words])


def names_of(command: str) -> set[str]:
    """The options of a command, of all methods for `fit`."""
    if command == "fit":
        return {name for method in METHODS for name in options(app["fit"][method])}
    return options(app[command])


def options(command) -> set[str]:
    return {
        name for argument in command.assemble_argument_collection() for name in (*argument.names, *argument.negatives)
    }


@pytest.mark.parametrize("command", neighbours.WORDS)
def test_a_word_of_the_table_is_no_option_and_its_translation_is_one(command):
    known = names_of(command)
    table = neighbours.WORDS[command]
    ours = {entry.ours.split()[0] for entry in table.values() if entry.ours}
    assert ours <= known
    assert not known & table.keys()


def pickled(path: Path, value: object) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


@pytest.fixture
def pickles(particles) -> dict[str, Path]:
    """The pickles that go with a stack: poses, CTF parameters, rows to keep."""
    table = Particles.read(particles)
    assert table.ctf is not None
    angles = np.degrees([table.ctf.astigmatism_rad_n, table.ctf.phase_shift_rad_n])
    optics = [table.ctf.voltage_kV_n, table.ctf.cs_mm_n, table.ctf.amplitude_contrast_n]
    defocus = [table.ctf.defocus_u_A_n, table.ctf.defocus_v_A_n, angles[0]]
    ctf = np.stack([np.full(len(table), table.box), table.pixel_A_n, *defocus, *optics, angles[1]], 1)
    shift_n2 = table.shift_A_n2 / (table.pixel_A_n[:, None] * table.box)
    return {
        "poses": pickled(particles.with_name("poses.pkl"), (table.rotation_n33, shift_n2)),
        "ctf": pickled(particles.with_name("ctf.pkl"), ctf),
        "ind": pickled(particles.with_name("ind.pkl"), np.arange(40)),
    }


LINE = (
    "--zdim 2 -n 1 -b 16 --enc-dim 16 --enc-layers 1 --dec-dim 16 --dec-layers 1 --lr 1e-4 --beta 0.5 --no-amp "
    "--pe-type geom_ft --seed 0 --lazy --log-interval 100 --checkpoint 5 --uninvert-data --num-workers 2 --Apix 6"
)


def test_a_whole_line_of_cryodrgns(morphem, particles, pickles, tmp_path):
    files = [f"--{name}={path}" for name, path in pickles.items()]
    stack, out = particles.with_name("particles.mrcs"), tmp_path / "out"
    ended = morphem("fit", "vae", stack, *files, "--datadir", tmp_path, *LINE.split(), "-o", out, "--threads", 1)
    assert ended.code == 0, ended.err
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["images"] == 40
    assert config["source"]["contrast"] == "dark"
    expected = {"latent_dim": 2, "epochs": 1, "batch_size": 16, "width": 16, "layers": 1, "learning_rate": 1e-4}
    assert config["settings"].items() >= (expected | {"beta": 0.5, "encoding": "geometric"}).items()

    backprojected = morphem("backproject", stack, *files, "-o", tmp_path / "map", "-b", 1000, "--threads", 1)
    assert backprojected.code == 0, backprojected.err


def test_a_run_is_looked_at_in_cryodrgns_words(morphem, run, tmp_path):
    fewest = ("--ksample", 3, "--pc", 1, "--n-per-pc", 2, "--skip-umap")
    analyzed = morphem("analyze", run, "--Apix", 6, *fewest, "--threads", 1)
    assert analyzed.code == 0, analyzed.err
    maps = {path.parent.name: len(list(path.parent.iterdir())) for path in (run / "analysis").glob("*/map_*.mrc")}
    assert maps == {"kmeans": 3, "pc1": 2}
    (tmp_path / "z.txt").write_text("0 0\n-1 1\n")
    for words, count in ((["-z", "0", "-0.5"], 1), (["--zfile", tmp_path / "z.txt"], 2)):
        decoded = morphem("decode", run, "-o", tmp_path / "maps", *words, "--overwrite")
        assert decoded.code == 0, decoded.err
        assert len(list((tmp_path / "maps").glob("map_*.mrc"))) == count
