"""Commands that cannot be obeyed: one sentence with a hint, exit code 2, nothing left behind."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from morphem.ensemble import Ensemble
from morphem.errors import InputError

MISSPELT = {
    "unknown method": ("fit vea {table} -o {out}", 'Unknown command "vea"', 'Did you mean "vae"?'),
    "unknown command": ("fti vae {table} -o {out}", 'Unknown command "fti"', 'Did you mean "fit"?'),
    "misspelt option": ("fit vae {table} -o {out} --latnet-dim 3", "--latnet-dim", "Did you mean --latent-dim?"),
    "option of a source": ("fit vae {table} -o {out} --datdir .", "--datdir", "Did you mean --datadir?"),
    "option of simulate": ("simulate {out} --pixel-sise 3", "--pixel-sise", "Did you mean --pixel-size?"),
    "unknown choice": ("fit vae {table} -o {out} --encoding geometrik", "--encoding", 'Did you mean "geometric"?'),
    "unknown kind": ("simulate {out} --kind hnige", '"hnige"', 'Did you mean "hinge"?'),
}
FIT = {
    "no table": ("fit vae -o {out}", "--particles", "morphem fit vae --help"),
    "no output": ("fit vae {table}", "--output", "morphem fit vae --help"),
    "a word too many": ("fit vae {table} extra -o {out}", "extra"),
    "text for a number": ("fit vae {table} -o {out} --epochs two", "--epochs", '"two"'),
    "no value": ("fit vae {table} -o {out} --epochs", "--epochs requires an argument"),
    "no latent": ("fit vae {table} -o {out} --latent-dim 0", "--latent-dim 0: expected 1 or more"),
    "no images a step": ("fit vae {table} -o {out} --batch-size 0", "--batch-size 0: expected 1 or more"),
    "negative epochs": ("fit vae {table} -o {out} --epochs -1", "--epochs -1: expected 1 or more"),
    "no step": ("fit vae {table} -o {out} --learning-rate 0", "--learning-rate 0", "expected a positive number"),
    "negative beta": ("fit vae {table} -o {out} --beta -1", "--beta -1", "expected 0 or more"),
    "radius 0": ("fit vae {table} -o {out} --radius 0", "--radius 0: holds no Fourier sample; expected 1 to 15"),
    "negative radius": ("fit vae {table} -o {out} --radius -5", "--radius -5: holds no Fourier sample"),
    "no radius": ("fit vae {table} -o {out} --radius nan", "--radius nan: holds no Fourier sample"),
    "padding": ("backproject {table} -o {out} --padding 9", "--padding 9: expected 1 to 4"),
    "threads": ("fit vae {table} -o {out} --threads -1", "--threads -1: expected 0 (all) or a positive number"),
    "another pixel": ("fit vae {table} -o {out} --pixel-size 3", "6 in row 1, but --pixel-size says 3"),
    "another box": ("fit vae {table} -o {out} --box 30", "32 in row 1, but --box says 30"),
    "another contrast": ("fit vae {table} -o {out} --amplitude-contrast 0.3", "0.1 in row 1", "says 0.3"),
    "no datadir": ("fit vae {table} -o {out} --datadir {out}", "out: no such folder"),
    "unknown suffix": ("fit vae {table.parent}/truth.parquet -o {out}", 'ends in ".parquet", expected .star'),
    "output is a file": ("fit vae {table} -o {table}", "particles.star: is a file"),
    "output in a file": ("fit vae {table} -o {table}/run", "particles.star: is a file"),
    "output holds data": ("fit vae {table} -o {table.parent}", "set: holds labels.npy, which no run wrote"),
    "overwriting data": ("fit vae {table} -o {table.parent} --overwrite", "holds labels.npy, which no run wrote"),
    "resuming data": ("fit vae {table} -o {table.parent} --resume", "holds labels.npy, which no run wrote"),
    "both": ("fit vae {table} -o {out} --overwrite --resume", "--overwrite --resume", "give one of them"),
}
SIMULATE = {
    "no images": ("simulate {out} --images 0", "--images 0: expected at least 1"),
    "odd box": ("simulate {out} --box 17", "--box 17: expected an even number"),
    "no box": ("simulate {out} --box 0", "--box 0: expected an even number"),
    "no signal": ("simulate {out} --snr 0", "--snr 0.0: expected a positive number"),
    "negative pixel": ("simulate {out} --pixel-size -1", "--pixel-size -1.0: expected a positive number of Å"),
    "negative seed": ("simulate {out} --seed -1", "--seed", "expected 0 or more"),
    "disordered range": ("simulate {out} --defocus 9000 5000", "--defocus 9000 5000", "in order"),
    "half a range": ("simulate {out} --defocus 9000", "--defocus requires 2", "Only got 1"),
    "missing atoms": ("simulate {out} --atoms {out}.pdb", "out.pdb: cannot be read as atoms"),
    "no atoms": ("simulate {out} --atoms {table}", "particles.star: cannot be read as atoms"),
    "a simulation": ("simulate {table.parent}", "set: holds a simulation already", "--overwrite"),
    "a file": ("simulate {table}", "particles.star: is a file"),
    "in a file": ("simulate {table}/set", "particles.star: is a file"),
}
NO_RUN = {
    f"{command.split()[0]} {what}": (command.replace("RUN", folder), f"{name}: is not a finished run", "`morphem fit`")
    for command in ("analyze RUN", "decode RUN -o {out} --z 0", "evaluate RUN --truth {table.parent}")
    for what, folder, name in (
        ("nothing", "{out}", "out"),
        ("data", "{table.parent}", "set"),
        ("a file", "{table}", "star"),
    )
}


@pytest.mark.parametrize("case", MISSPELT)
def test_66_of_a_misspelt_word_the_nearest_is_suggested(refused, particles, tmp_path, case):
    words, *phrases = MISSPELT[case]
    refused(words.format(table=particles, out=tmp_path / "out").split(), phrases)


def test_66_of_a_misspelt_setting_the_nearest_is_suggested(refused, run, tmp_path):
    """In a file that a user has edited."""
    text = (run / "config.yaml").read_text()
    assert "  pixel_size:" in text
    (run / "config.yaml").write_text(text.replace("  pixel_size:", "  pixel_sise:"))
    with pytest.raises(InputError, match=r"config.yaml: unknown setting 'pixel_sise'. Did you mean \"pixel_size\"\?"):
        Ensemble.open(run).dataset()


@pytest.mark.parametrize("case", FIT | SIMULATE | NO_RUN)
def test_65_wrong_words_are_refused(refused, particles, tmp_path, case):
    words, *phrases = (FIT | SIMULATE | NO_RUN)[case]
    refused(words.format(table=particles, out=tmp_path / "out").split(), phrases)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_59_an_absent_gpu_is_refused(refused, particles, tmp_path):
    refused(["fit", "vae", particles, "-o", tmp_path / "out", "--device", "cuda"], ("no CUDA device", "--device cpu"))


TINY = " --width 16 --layers 1 --threads 1"
WITH_RUN = {
    "z too long": ("decode {run} -o {out} --z 1,2,3", "z has 3 numbers, the run's latent has 2"),
    "z too short": ("decode {run} -o {out} --z -0.5", "z has 1 numbers, the run's latent has 2"),
    "negative seed of a fit": ("fit vae {table} -o {out} --seed -1 --epochs 1" + TINY, "--seed"),
    "negative seed of scores": ("evaluate {run} --truth {table.parent} --seed -1", "--seed"),
    "blind encoder": ("fit vae {table} -o {out} --encoder-radius 0 --epochs 1" + TINY, "--encoder-radius 0"),
    "beta not a number": ("fit vae {table} -o {out} --beta nan --epochs 1" + TINY, "--beta nan"),
    "endless step": ("fit vae {table} -o {out} --learning-rate inf --epochs 1" + TINY, "--learning-rate inf"),
    "fraction for a count": ("fit vae {table} -o {out} --epochs 1.5" + TINY, "--epochs", '"1.5"'),
    "fraction for an image": ("decode {run} -o {out} --image 3 4.5", "--image", '"4.5"'),
    "fraction for a path": ("decode {run} -o {out} --path 0 1.5", "--path", '"1.5"'),
    "fraction for a box": ("fit vae {table} -o {out} --box 32.5" + TINY, "--box", '"32.5"'),
    "another run": ("fit vae {table} -o {run}", "run: holds another run", "--resume", "--overwrite"),
    "z of words": ("decode {run} -o {out} --z one", '--z "one": no rows of equally many numbers'),
    "z not finite": ("decode {run} -o {out} --z nan,0", '--z "nan,0": no rows of equally many numbers'),
    "maps into a file": ("decode {run} -o {table} --z 0,0", "particles.star: is a file"),
    "no z": ("decode {run} -o {out}", "nothing given", "--z, --z-file, --image, --path"),
    "two kinds of z": ("decode {run} -o {out} --z 1,2 --image 3", "--z and --image given"),
    "missing z file": ("decode {run} -o {out} --z-file {out}.txt", "out.txt: no such file"),
    "z file of text": ("decode {run} -o {out} --z-file {table}", "particles.star: no rows of equally many numbers"),
    "no such image": ("decode {run} -o {out} --image 0 150", "image 150: the run has images 0 to 149"),
    "image before 0": ("decode {run} -o {out} --image -1", "image -1: the run has images 0 to 149"),
    "path to nowhere": ("decode {run} -o {out} --path 0 150", "image 150: the run has images 0 to 149"),
    "half a path": ("decode {run} -o {out} --path 0", "--path requires 2", "Only got 1"),
    "path of one map": ("decode {run} -o {out} --path 0 1 --frames 1", "--frames 1: expected at least 2"),
    "too many clusters": ("analyze {run} --clusters 151", "--clusters 151", "give 1 to 150"),
    "no clusters": ("analyze {run} --clusters 0", "--clusters 0", "at least 1 cluster"),
    "missing truth": ("evaluate {run} --truth {out}", "out: is no truth folder (no labels.npy)"),
    "no truth": ("evaluate {run} --truth {run}", "run: is no truth folder (no labels.npy)"),
    "no truth given": ("evaluate {run} --json", "--truth", "morphem evaluate --help"),
}
RESUME = {
    "settings and images": (
        "fit vae {table} -o {run} --resume --width 16 --layers 2 --latent-dim 3 --precision float32 --seed 7",
        "source.particles was ",
        "settings.latent_dim was 2, is 3",
        "settings.layers was 1, is 2",
        "seed was 0, is 7",
        "--overwrite",
    ),
    "rows": (
        "fit vae {tiny} -o {run} --resume --width 16 --layers 1 --latent-dim 2 --precision float32 --ind {rows}",
        "source.ind was None, is ",
        "images was 150, is 3",
    ),
    "method": ("backproject {table} -o {run} --resume", "method was 'vae', is 'backproject'"),
}


@pytest.mark.parametrize("case", WITH_RUN)
def test_65_wrong_words_about_a_run_are_refused(refused, particles, run, tmp_path, case):
    words, *phrases = WITH_RUN[case]
    refused(words.format(table=particles, out=tmp_path / "out", run=run).split(), phrases)


@pytest.mark.parametrize("case", RESUME)
def test_52_going_on_with_other_settings_is_refused_with_the_differences(refused, tiny, particles, run, tmp_path, case):
    np.save(tmp_path / "rows.npy", [5, 3, 8])
    words, *phrases = RESUME[case]
    names = {"table": particles, "tiny": tiny / "particles.star", "run": run, "rows": tmp_path / "rows.npy"}
    refused(words.format(**names).split(), phrases)


@pytest.mark.parametrize("z", [np.zeros((0, 2)), np.zeros((1, 1, 2)), np.array([["a", "b"]]), np.full((1, 2), np.inf)])
def test_65_z_files_that_hold_no_latents_are_refused(refused, run, tmp_path, z):
    np.save(tmp_path / "z.npy", z)
    words = ["decode", run, "-o", tmp_path / "out", "--z-file", tmp_path / "z.npy"]
    refused(words, ("z.npy: no rows of equally many numbers",))


@pytest.mark.parametrize("text", ["", "1 2\n3\n", "1 2\n3 x\n", "\0\xff"])
def test_65_z_texts_that_hold_no_latents_are_refused(refused, run, tmp_path, text):
    (tmp_path / "z.txt").write_text(text, encoding="latin-1")
    words = ["decode", run, "-o", tmp_path / "out", "--z-file", tmp_path / "z.txt"]
    refused(words, ("z.txt: no rows of equally many numbers",))


@pytest.mark.parametrize("word", ["--overwrite", "--resume"])
def test_67_a_lone_table_of_the_users_is_no_run(refused, particles, tmp_path, word):
    """Runs leave a particles.star too, but this one no run wrote."""
    table = Path(shutil.copy(particles, tmp_path / "own.star"))
    folder = particles.parent
    for path in set(folder.rglob("*.*")) - {particles, folder / "particles.mrcs"}:
        path.unlink()
    shutil.rmtree(folder / "vols")
    shutil.move(folder / "particles.mrcs", tmp_path)
    refused(["fit", "vae", table, "-o", folder, word], ("holds particles.star, which no run wrote",))
