"""`python -m lab`: the lab's commands without the rest of sshoal."""

from lab.cli import main

main()
