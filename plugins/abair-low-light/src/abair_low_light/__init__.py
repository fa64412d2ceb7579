"""ABAIR plugin `low-light`: darkness from too short an exposure, with its noise."""

from pathlib import Path

from abair import Card, Degradation, hookimpl, recorded_figures

ADAPTERS = Path(__file__).parent / "adapters"


@hookimpl
def abair_degradations() -> list[Degradation]:
    """Declare the one degradation of this plugin."""
    return [
        Degradation(
            name="low-light",
            title="Low light",
            synthesizer="abair_low_light.synthesis:degrade",
            adapters=ADAPTERS,
            card=Card(
                authors=("The ABAIR authors",),
                licence="Apache-2.0",
                training_data=(
                    "BSDS500, CID22, CLIC2025 and wallpaper photographs, damaged by the synthesiser; real damage: "
                    "LOL v1 our485"
                ),
                figures=recorded_figures(ADAPTERS),
                command="abair train adapter low-light",
            ),
        )
    ]
