"""How the outcome of an operation is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from abair.cli.console import Reporter
from abair.errors import RegistryError
from abair_registry.cli.common import table

if TYPE_CHECKING:
    from abair_registry.operations.gates import GateResult
    from abair_registry.operations.requests import OperationResult, PointerMove


def show_result(reporter: Reporter, result: OperationResult, json: bool) -> None:
    """Print the verdicts on stderr and the outcome on stdout; a refusal fails the command."""
    if result.results:
        _show_gates(result.results)
    if result.lowered:
        from abair_registry.settings import describe_lowered

        reporter.log(f"warning: of the gates, {describe_lowered(result.lowered)}")
    if result.unchanged is not None:
        reporter.log(f"{result.unchanged}; nothing was to be done")
    elif result.run_id is not None:
        reporter.log(f"run {result.run_id}, {result.seconds:.0f} s; to look at it: abair-registry ui")
    if json:
        reporter.result(result.as_json())
    else:
        outcomes = {
            "live": f"deployment {result.deployment} is live",
            "challenger": f"deployment {result.deployment} waits for review: promote {result.deployment}",
            "rejected": f"refused; deployment {result.deployment} stays live",
        }
        print(outcomes[result.outcome], flush=True)
    if result.outcome == "rejected":
        refused = ", ".join(verdict.name for verdict in result.verdicts if not verdict.passed)
        reporter.fail(
            RegistryError(
                f"operation {result.operation}: refused by {refused}; expected all gates to pass; what to do stands "
                "above and in the run; to publish all the same: --force --reason WHY"
            )
        )
        if result.run_id is not None:
            reporter.log(f"to look at what was refused: abair restore PHOTO --deployment runs:/{result.run_id}")


def _show_gates(results: Sequence[GateResult]) -> None:
    """Print a row a gate, those that refused first, with what to do."""
    rows = []
    for result in sorted(results, key=lambda result: result.passed):
        verdict, advice = ("passed", "") if result.passed else ("refused", result.verdict.advice)
        rows.append((verdict, result.name, result.found, result.verdict.detail, result.asked, advice))
    columns = ("verdict", "gate", "measured", "detail", "threshold", "what to do")
    shown = len(columns) - all(result.passed for result in results)
    table(columns[:shown], [row[:shown] for row in rows], result=False)


def show_move(reporter: Reporter, move: PointerMove, json: bool) -> None:
    """Print which deployment is live now."""
    if move.unchanged is not None:
        reporter.log(f"{move.unchanged}; nothing was to be done")
    if json:
        reporter.result(asdict(move))
    elif move.unchanged is not None:
        print(f"deployment {move.deployment} is live", flush=True)
    else:
        print(f"deployment {move.deployment} is live, in the place of {move.before}", flush=True)
