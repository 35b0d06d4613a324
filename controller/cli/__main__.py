"""`python -m controller.cli`: what a schedule runs, whatever PATH is."""

from controller.cli.start import main

main()
