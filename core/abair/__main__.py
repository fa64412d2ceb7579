"""`python -m abair`: the command line, as torchrun and scripts start it."""

from abair.cli.app import main

if __name__ == "__main__":
    main()
