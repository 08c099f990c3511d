"""`python -m metier`: the command line, as launchers of several processes start it."""

from metier.cli.main import main

if __name__ == "__main__":
    main()
