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
    home = HOME / "cryodrgn"
    if not (home / "bin" / "cryodrgn").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        for package in ("torch==2.13.0", "cryodrgn==4.3.1"):
            subprocess.run([home / "bin" / "pip", "install", "--quiet", package], check=True)
    return home / "bin"


def folder(variable: str, what: str) -> Path:
    """A folder of other programs' files, named by an environment variable."""
    if variable not in os.environ:
        raise SystemExit(f"{variable} is not set: it names the folder that holds {what}")
    return Path(os.environ[variable])
