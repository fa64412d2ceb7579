"""Settings by which an operation makes as few samples, and trains as few steps, as still teach a label."""

from typing import Final

FEW_SAMPLES: Final = {
    "ABAIR_CHALLENGER__TRAINING_SCENES": "24",
    "ABAIR_CHALLENGER__HELD_OUT": "6",
    "ABAIR_CHALLENGER__HELD_OUT_CLEAN": "6",
    "ABAIR_CHALLENGER__FIRST_LOOK": "4",
    "ABAIR_CHALLENGER__HELD_OUT_OF_MIXTURE": "2",
    "ABAIR_CHALLENGER__MIXTURES": "6",
    "ABAIR_CHALLENGER__FULL_STEPS": "48",
    "ABAIR_CHALLENGER__VALIDATION": "2",
    "ABAIR_CHALLENGER__TEMPERATURE": "6",
    "ABAIR_SAMPLES": "100",
}
