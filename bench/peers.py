"""Other programs, each installed in an environment of its own under .peers/, and files of theirs."""

import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent / ".peers"


def cryodrgn() -> Path:
    """The folder of cryoDRGN 4.3.1's programs, installed on first use (CRYODRGN_BIN names another one)."""
    if "CRYODRGN_BIN" in os.environ:
        return Path(os.environ["CRYODRGN_BIN"])
    return installed("cryodrgn", "torch==2.13.0", "cryodrgn==4.3.1")


def recovar() -> Path:
    """RECOVAR 1.0.5's program, installed on first use (RECOVAR_BIN names the folder of another one)."""
    if "RECOVAR_BIN" in os.environ:
        return Path(os.environ["RECOVAR_BIN"]) / "recovar"
    return installed("recovar", "recovar==1.0.5") / "recovar"


def installed(name: str, *packages: str) -> Path:
    """The folder of programs of an environment, made on first use."""
    home = HOME / name
    if not (home / "bin" / name).exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        for package in packages:
            subprocess.run([home / "bin" / "pip", "install", "--quiet", package], check=True)
    return home / "bin"


def folder(variable: str, what: str) -> Path:
    """A folder of other programs' files, named by an environment variable."""
    if variable not in os.environ:
        raise SystemExit(f"{variable} is not set: it names the folder that holds {what}")
    return Path(os.environ[variable])
