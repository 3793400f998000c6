"""`python -m prune_nas` is the command line."""

from prune_nas.cli import main

main()
