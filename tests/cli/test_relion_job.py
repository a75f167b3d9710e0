"""As an External job of RELION: called in a project's folder with RELION's words, in a folder that RELION made."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from morphem.cli import relion_job
from morphem.errors import RunError
from morphem.io import star

JOB = Path("External/job002")
TABLE = "Refine3D/job001/run_data.star"
CALL = ("--o", f"{JOB}/", "--in_parts", TABLE)
END = ("--j", 1, "--pipeline_control", f"{JOB}/")
SMALL = ("--width", 16, "--layers", 1, "--latent_dim", 2, "--precision", "float32")
VAE = ("fit", "vae", *CALL, *SMALL, "--epochs")
TYPES = {
    "3.1": ("Type", "3", "6", "10", "7"),
    "4": ("TypeLabel", "ParticlesData.star.relion", "DensityMap.mrc", "DensityMap.mrc.halfmap", "Mask3D.mrc"),
    "5": ("TypeLabel", "ParticleGroupMetadata.star.relion", "DensityMap.mrc", "DensityMap.mrc.halfmap", "Mask3D.mrc"),
}
MADE = ("particles.star", "maps/consensus.mrc", "maps/consensus_half1_unfil.mrc", "maps/mask.mrc")


def pipeline(release: str = "3.1") -> str:
    """RELION's table of a job that takes particles."""
    column, particles, *_ = TYPES[release]
    names = f"loop_ \n_rlnPipeLineNodeName #1 \n_rlnPipeLineNode{column} #2 \n"
    return f"\n# version 30001\n\ndata_pipeline_nodes\n\n{names}{TABLE} {particles}.refine3d 1 \n \n"


@pytest.fixture
def project(tiny, tmp_path, monkeypatch) -> Path:
    """A project in which RELION is about to call an External job."""
    monkeypatch.chdir(tmp_path)
    for folder in ("Extract/job000", "Refine3D/job001", JOB):
        Path(folder).mkdir(parents=True)
    shutil.copy(tiny / "particles.mrcs", "Extract/job000")
    Path(TABLE).write_text((tiny / "particles.star").read_text().replace("@", "@Extract/job000/"))
    for name in ("run.out", "run.err", "note.txt", "run.job", ".CTRL"):
        (JOB / name).write_text(f"RELION's {name}\n")
    (JOB / "job.star").write_text("data_job\n\n_rlnJobType 99\n_rlnJobIsContinue 0\n")
    for path in (JOB / "job_pipeline.star", JOB / "default_pipeline.star", Path("default_pipeline.star")):
        path.write_text(pipeline())
    return tmp_path


@pytest.fixture
def relions(project) -> dict[Path, bytes]:
    """RELION's own files of the job, and the input."""
    return {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}


def ends() -> list[str]:
    """What RELION is told of the job's end."""
    return sorted(path.name.removeprefix("RELION_JOB_") for path in JOB.glob("RELION_JOB_*"))


@pytest.mark.parametrize("release", TYPES)
def test_a_job_says_how_it_ended_and_what_it_made(morphem, project, release):
    (JOB / "job_pipeline.star").write_text(pipeline(release))
    ended = morphem("backproject", *CALL, *END)
    assert ended.code == 0, ended.err
    assert ends() == ["EXIT_SUCCESS"]
    column, *types = TYPES[release]
    nodes = star.read(JOB / "RELION_OUTPUT_NODES.star")["output_nodes"]
    assert list(nodes) == ["rlnPipeLineNodeName", f"rlnPipeLineNode{column}"]
    assert nodes.to_numpy().tolist() == [[f"{JOB}/{name}", kind] for name, kind in zip(MADE, types, strict=True)]
    assert all(Path(name).is_file() for name in nodes["rlnPipeLineNodeName"])
    names = star.read(JOB / "particles.star")["particles"]["rlnImageName"]
    assert names.str.endswith("@Extract/job000/particles.mrcs").all()


def test_a_job_goes_on_and_relions_files_stay(morphem, project, relions):
    assert morphem(*VAE, 1, *END).code == 0
    again = morphem(*VAE, 2, *END)
    assert again.code == 0, again.err
    assert "going on after epoch 1" in again.err
    over = morphem(*VAE, 1, "--overwrite", *END)
    assert over.code == 0, over.err
    assert "going on" not in over.err
    assert ends() == ["EXIT_SUCCESS"]
    assert {path: path.read_bytes() for path in relions} == relions


WRONG = {
    "3D reference": (("--in_3dref", "Refine3D/job001/run_class001.mrc"), ("--in_3dref", "leave RELION's Input 3D")),
    "micrographs": (("--in_mics", "CtfFind/job001/micrographs.star"), ("--in_mics", "give Input particles")),
    "movies": (("--in_movies", "Import/job001/movies.star"), ("--in_movies", "give Input particles")),
    "coordinates": (("--in_coords", "AutoPick/job001/autopick.star"), ("--in_coords", "give Input particles")),
    "misspelt label": (("--latnet-dim", 3), ("--latnet-dim", "Did you mean")),
    "text for a number": (("--box", "large"), ("--box", '"large"')),
    "another pixel": (("--pixel-size", 3), ("run_data.star", "--pixel-size says 3")),
}


@pytest.mark.parametrize("case", WRONG)
def test_65_wrong_input_is_a_failed_job(morphem, project, relions, case):
    words, phrases = WRONG[case]
    for stale in ("SUCCESS", "ABORTED"):
        (JOB / f"RELION_JOB_EXIT_{stale}").touch()
    ended = morphem("fit", "vae", *CALL, *words, *END)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert all(phrase in ended.err for phrase in phrases), ended.err
    assert ends() == ["EXIT_FAILURE"]
    failure = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert failure.keys() - relions.keys() == {project / JOB / "RELION_JOB_EXIT_FAILURE"}
    assert {path: failure[path] for path in relions} == relions


def test_67_particles_of_another_job_of_relion_stay(morphem, project):
    """Its folder holds a table of the name of ours."""
    folder = Path("Select/job003")
    shutil.copytree(JOB, folder)
    shutil.copy(TABLE, folder / "particles.star")
    before = (folder / "particles.star").read_bytes()
    for word in ((), ("--overwrite",), ("--resume",)):
        ended = morphem("backproject", "--o", folder, "--in_parts", TABLE, *word)
        assert ended.code == 2
        assert "holds particles.star, which no run wrote" in ended.sentence
    assert (folder / "particles.star").read_bytes() == before


def test_outputs_that_cannot_be_listed_are_a_failed_job(morphem, project, monkeypatch):
    def full(path, _):
        raise RunError(f"{path}: could not be written (No space left on device); free some space")

    monkeypatch.setattr(star, "write", full)
    monkeypatch.setattr("morphem.data.particles.Particles.write", lambda *_: shutil.copy(TABLE, JOB / "particles.star"))
    ended = morphem("backproject", *CALL, *END)
    assert ended.code == 1
    assert ends() == ["EXIT_FAILURE"]


@pytest.mark.parametrize(
    "ask", [lambda _: (JOB / "RELION_JOB_ABORT_NOW").touch(), lambda pid: os.kill(pid, signal.SIGTERM)]
)
def test_an_aborted_job_keeps_its_checkpoint(morphem, project, ask):
    words = [sys.executable, "-m", "morphem", *map(str, (*VAE, 9999, *END))]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while not (JOB / "checkpoints" / "epoch-0001.safetensors").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        ask(process.pid)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert said.splitlines()[-1].startswith("morphem: stopped")
    assert ends() == ["EXIT_ABORTED"]
    assert list((JOB / "checkpoints").glob("epoch-*.safetensors"))


def test_words_of_others_are_left_alone():
    for words in (["decode", "run", "--o", "out"], ["fit", "vae", "a.star", "-o", "out", "--j", "2"], []):
        assert relion_job.translate(words) == words
        assert relion_job.folder_of(words) is None
    assert relion_job.translate(["backproject", "--o", "out/", "--j", "4"]) == [
        "backproject",
        "--output",
        "out/",
        "--threads",
        "4",
    ]


def test_a_mask_is_passed_on(morphem, project, tiny):
    ended = morphem("backproject", *CALL, "--in_mask", tiny / "mask.mrc", *END)
    assert ended.code == 0, ended.err
    assert str(tiny / "mask.mrc") in (JOB / "config.yaml").read_text()


RELION_JOB = """
# version 30001

data_job

_rlnJobType                            99
_rlnJobIsContinue                       0


# version 30001

data_joboptions_values

loop_
_rlnJobOptionVariable #1
_rlnJobOptionValue #2
fn_exe "{command} backproject"
in_part {table}
nr_threads 1
"""
RELION_PIPELINE = """
# version 30001

data_pipeline_general

_rlnPipeLineJobCounter 2


# version 30001

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessType #3
_rlnPipeLineProcessStatus #4
Refine3D/job001/ None 10 2


# version 30001

data_pipeline_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeType #2
{table} 3
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("relion_pipeliner") is None, reason="RELION is not installed")
def test_relion_runs_a_job_and_takes_its_outputs(project):
    shutil.rmtree(JOB)
    Path("morphem").write_text(f'#!/bin/sh\nexec {sys.executable} -m morphem "$@"\n')
    Path("morphem").chmod(0o755)
    Path("job.star").write_text(RELION_JOB.format(command=project / "morphem", table=TABLE))
    Path("default_pipeline.star").write_text(RELION_PIPELINE.format(table=TABLE))
    for words in (["--addJobFromStar", "job.star"], ["--RunJobs", f"{JOB}/", "--sec_wait_after", "1"]):
        subprocess.run(["relion_pipeliner", *words], check=True, timeout=120, capture_output=True)
    assert ends() == ["EXIT_SUCCESS"], (JOB / "run.err").read_text()
    blocks = star.read("default_pipeline.star")
    nodes = dict(blocks["pipeline_nodes"].to_numpy().tolist())
    assert nodes == {TABLE: "3"} | {f"{JOB}/{name}": kind for name, kind in zip(MADE, TYPES["3.1"][1:], strict=True)}
    processes = blocks["pipeline_processes"].set_index("rlnPipeLineProcessName")["rlnPipeLineProcessStatus"]
    assert processes[f"{JOB}/"] == "2"
