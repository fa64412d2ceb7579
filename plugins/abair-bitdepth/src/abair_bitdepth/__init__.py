"""ABAIR plugin `bitdepth`: too few levels a channel, seen as steps in smooth regions."""

from pathlib import Path

from abair import Card, Degradation, hookimpl


@hookimpl
def abair_degradations() -> list[Degradation]:
    """Declare the one degradation of this plugin."""
    return [
        Degradation(
            name="bitdepth",
            title="Bit depth",
            synthesizer="abair_bitdepth.synthesis:degrade",
            adapters=Path(__file__).parent / "adapters",
            card=Card(
                authors=("The ABAIR authors",),
                licence="Apache-2.0",
                training_data="BSDS500, CID22, CLIC2025 and wallpaper photographs, damaged by the synthesiser",
                command="abair train adapter bitdepth",
            ),
        )
    ]
