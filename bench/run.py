"""Every claim of the README, measured one after another; `make bench`.

Other programs' files are found through MORPHEM_FIXTURES and MORPHEM_DATA; what needs an absent folder is left out.
"""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = {
    "slices.py": (),
    "simulation.py": (),
    "backprojection.py": (),
    "ribosome.py": ("MORPHEM_FIXTURES",),
    "kernel.py": (),
    "linear.py hinge": (),
    "linear.py assembly": (),
    "linear.py molecules": (),
    "linear.py size": (),
    "linear.py relion70S": ("MORPHEM_DATA",),
    "abinitio.py": (),
    "auto.py": (),
    "when_it_fails.py": (),
    "analysis.py": (),
    "main_job.py": ("MORPHEM_DATA",),
    "networks.py --pin": (),
    "networks.py --pin --box 128 --images 2000": (),
}


def main() -> None:
    for script, needed in SCRIPTS.items():
        missing = [name for name in needed if name not in os.environ]
        print(f"\n== {script}" + (f": left out, {missing[0]} is not set" if missing else ""), flush=True)
        if not missing:
            name, *options = script.split()
            subprocess.run([sys.executable, Path(__file__).parent / name, *options], check=True)


if __name__ == "__main__":
    main()
