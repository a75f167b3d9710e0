"""`morphem inspect` and `morphem downsample`: what they print, write and refuse."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest

from morphem.data.particles import Particles
from morphem.io import mrc, star


def spoil(table) -> None:
    """Two errors, a warning and a note."""
    blocks = star.read(table)
    blocks["optics"]["rlnBeamTiltX"] = "0.3"
    blocks["particles"].loc[4, "rlnImageName"] = "000001@gone.mrcs"
    blocks["particles"] = blocks["particles"].drop(columns=["rlnDefocusV", "rlnRandomSubset"])
    star.write(table, blocks)


def invert(table) -> None:
    stack = mrc.open_stack(table.with_name("particles.mrcs"))
    mrc.write_map(stack.path, -stack.images_nyx, stack.pixel_A)


def test_a_clean_set_ends_with_0(morphem, tiny):
    ended = morphem("inspect", tiny / "particles.star")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[1].split() == ["particles", "150"]
    assert any(line.split() == ["opticsGroup1", "150", "6", "300", "2.7", "0.1"] for line in lines)
    assert "0 errors, 0 warnings, 0 notes" in lines
    assert max(map(len, lines)) < 120 + len(str(tiny))


def test_all_findings_are_listed_and_one_sentence_says_that_a_fit_would_refuse(morphem, particles):
    spoil(particles)
    ended = morphem("inspect", particles)
    assert ended.code == 2
    assert ended.err == f"morphem: {particles}: 2 errors, a fit would refuse this; see to what is listed\n"
    *_, missing, no_ctf, warning, note, _, counts = ended.out.splitlines()
    for line, start, phrase in (
        (missing, "error    ", "1 of 2 stacks not found"),
        (no_ctf, "error    ", "no rlnDefocusV"),
        (warning, "warning  ", "rlnBeamTiltX"),
        (note, "note     ", "no half-sets"),
    ):
        assert line.startswith(start), ended.out
        assert phrase in line, ended.out
    assert counts == "2 errors, 1 warning, 1 note"


def test_json_is_one_line_with_the_same_findings(morphem, particles):
    spoil(particles)
    ended = morphem("inspect", particles, "--json")
    assert (ended.code, ended.out.count("\n")) == (2, 1)
    found = json.loads(ended.out)
    assert set(found) == {"holds", "findings"}
    assert [set(finding) for finding in found["findings"]] == [{"severity", "what", "where", "remedy"}] * 4
    assert [finding["severity"] for finding in found["findings"]] == ["error", "error", "warning", "note"]
    assert (found["holds"]["rows"], found["holds"]["pixel_A"], found["holds"]["defocus_A"]["min"] > 0) == (
        150,
        [6],
        True,
    )


def test_a_terminal_gets_tables(morphem, particles, monkeypatch):
    spoil(particles)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    ended = morphem("inspect", particles)
    assert ended.code == 2
    assert "2 errors, 1 warning, 1 note" in ended.out
    assert "optics group" in ended.out and "gone.mrcs" in ended.out
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in ended.out.splitlines()) <= 100


def test_16_an_inverted_stack_is_a_warning_that_names_the_option(morphem, particles):
    invert(particles)
    ended = morphem("inspect", particles)
    assert ended.code == 0
    (warning,) = [line for line in ended.out.splitlines() if line.startswith("warning")]
    assert warning.endswith("give --contrast dark")
    assert "0 errors, 0 warnings" in morphem("inspect", particles, "--contrast", "dark").out


def test_the_options_of_fit_are_heeded(morphem, particles):
    spoil(particles)
    np.save(particles.with_name("rows.npy"), np.arange(5, 150))
    ended = morphem(
        "inspect", particles, "--no-ctf", "--ind", particles.with_name("rows.npy"), "--all-images", "--json"
    )
    assert ended.code == 0, ended.out
    assert json.loads(ended.out)["holds"]["rows"] == 145


@pytest.mark.parametrize("words", [(), ("--json",), ("--datadir", "nowhere")])
def test_without_a_table_nothing_is_shown(refused, tmp_path, words):
    refused(["inspect", tmp_path / "gone.star", *words], ("gone.star: no such file",))


def test_05_a_downsampled_set_is_clean_and_its_next_commands_are_said(morphem, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = morphem("downsample", tiny / "particles.star", "-D", 24, "-o", "job/small.star")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "Finished: job/small.star (150 images of 24 pixels, 8 Å each)"
    assert any("relion_reconstruct --i" in line and "--ctf" in line for line in lines)
    assert any("Import Particle Stack" in line for line in lines)
    assert shlex.split(lines[-1]) == ["morphem", "fit", "vae", "job/small.star", "-o", "RUN"]
    assert star.read("job/small.star")["particles"]["rlnImageName"].iloc[149] == "000150@job/small.mrcs"
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["small.mrcs", "small.star"]
    inspected = morphem("inspect", "job/small.star")
    assert inspected.code == 0
    assert "0 errors, 0 warnings, 0 notes" in inspected.out


def test_without_poses_no_command_that_needs_them_is_named(morphem, tiny, tmp_path):
    output = tmp_path / "small.star"
    ended = morphem("downsample", tiny / "particles.mrcs", "--box", 16, "-o", output)
    assert (ended.code, ended.out.splitlines()[0]) == (0, f"Finished: {output} (150 images of 16 pixels, 12 Å each)")
    assert "relion_refine --i" in ended.out and "Class2D" in ended.out and "Import Particle Stack" in ended.out
    assert "morphem fit" not in ended.out and "--auto_refine" not in ended.out
    small = Particles.read(output, no_ctf=True, require_poses=False)
    assert (small.box, small.has_poses, set(small.pixel_A_n)) == (16, False, {12.0})


def test_67_an_output_is_replaced_only_when_told_so(morphem, refused, tiny, tmp_path):
    output = tmp_path / "small.star"
    words = ["downsample", tiny / "particles.star", "-D", 16, "-o", output]
    assert morphem(*words).code == 0
    refused(words, ("small.star: exists already", "--overwrite"))
    assert morphem(*words[:3], 12, "-o", output, "--overwrite").code == 0
    assert Particles.read(output).box == 12


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        ("{table} -D 17 -o {out}.star", ("--box 17: expected an even number from 4 to 31",)),
        ("{table} -D 32 -o {out}.star", ("--box 32: expected",)),
        ("{table} -D 16 -o {out}.cs", ("has no .cs fields",)),
        ("{table} -D 16 -o {out}", ("expected .star or .cs",)),
        ("{table} -D 16 -o {table}", ("is what is to be downsampled",)),
        ("{table} -D 16 -o {table} --overwrite", ("is what is to be downsampled",)),
        ("{table} -D 16 -o {table}/a.star", ("particles.star: is a file",)),
        ("{table} -o {out}.star", ("--box",)),
        ("{table} -D 16", ("--output",)),
        ("{table} -D 16 -o {out}.star --datadir {out}", ("no such folder",)),
        ("{out}.star -D 16 -o {out}.star", ("no such file",)),
    ],
)
def test_65_wrong_words_are_refused(refused, particles, tmp_path, words, phrases):
    filled = words.format(table=particles, out=tmp_path / "out")
    refused(["downsample", *shlex.split(filled)], phrases)


@pytest.mark.parametrize("defect", ["missing", "short", "blank"])
def test_65_images_that_cannot_be_read_are_refused(refused, particles, tmp_path, defect):
    stack = particles.with_name("particles.mrcs")
    if defect == "missing":
        stack.unlink()
    elif defect == "short":
        stack.write_bytes(stack.read_bytes()[:-4])
    else:
        image_nyx = np.array(mrc.open_stack(stack).images_nyx)
        image_nyx[7] = 1
        mrc.write_map(stack, image_nyx, 6.0)
    phrase = {"missing": "was not found", "short": "header claims", "blank": "constant or not finite in rows 8"}[defect]
    refused(["downsample", particles, "-D", 16, "-o", tmp_path / "out.star"], (phrase,))


def test_the_command_that_inspect_prints_can_be_typed(morphem, tiny, tmp_path, monkeypatch):
    """With pickles, a folder of stacks and options, all of which it repeats."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    table = shutil.copy(tiny / "particles.star", tmp_path / "a folder" / "some particles.star")
    ended = morphem("inspect", table, "--datadir", tiny, "--contrast", "white", "--pixel-size", 6)
    words = shlex.split(ended.out.splitlines()[-1])
    assert words[:3] == ["morphem", "fit", "vae"]
    small = ["--epochs", "1", "--width", "16", "--layers", "1", "--map-every", "0"]
    assert morphem(*words[1:], *small).code == 0


def test_a_cs_table_leads_to_a_star_that_others_import(morphem, fixtures, tmp_path):
    table = shutil.copy(fixtures / "empiar_10076_7.cs", tmp_path / "particles.cs")
    shutil.copy(fixtures / "empiar_10076_7.mrc", tmp_path)
    ended = morphem("downsample", table, "--box", 64, "-o", tmp_path / "small.cs")
    (line,) = [line for line in ended.out.splitlines() if "morphem export" in line]
    assert morphem(*shlex.split(line)[1:]).code == 0
    assert Particles.read(tmp_path / "small.star", require_poses=False).box == 64
