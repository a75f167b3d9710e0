"""`python -m morphem` is the same as `morphem`."""

from morphem.cli import main

main()
