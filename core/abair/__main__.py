"""The program `abair`, which is also `python -m abair`, as torchrun starts it."""

import sys

from abair import signals


def main() -> None:
    """Run the program; signals are handled before anything else is imported."""
    signals.exit_at_once("abair")
    from abair.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
