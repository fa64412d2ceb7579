"""`python -m abair_registry`: the command line, as torchrun and scripts start it."""

from abair_registry.cli.app import main

if __name__ == "__main__":
    main()
