"""`python -m psgpo` is the `psgpo` command."""

from psgpo.cli.main import main

main()
