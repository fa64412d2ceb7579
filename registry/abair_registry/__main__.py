"""The program `abair-registry`, which is also `python -m abair_registry`."""

import sys

from abair import signals


def main() -> None:
    """Run the program; signals are handled before anything else is imported."""
    signals.exit_at_once("abair-registry")
    from abair_registry.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
