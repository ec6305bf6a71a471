"""`python -m datarun.cli`: the command line without its script, as the stack starts itself."""

from datarun.cli import main

main()
