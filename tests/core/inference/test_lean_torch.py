"""What is put off when torch is imported for restoring alone, each in a Python of its own."""

import subprocess
import sys

import pytest
import torch

from abair.inference import lean_torch

pytestmark = pytest.mark.skipif(
    ".".join(torch.__version__.split(".")[:2]) not in lean_torch.TESTED,
    reason=f"torch {torch.__version__} is imported as usual; install torch {', '.join(lean_torch.TESTED)}",
)

LEFT = "left = [name for name in lean_torch.PUT_OFF if type(sys.modules[name]) is lean_torch._Module]"


def run(*lines: str) -> str:
    """Run lines of Python and return what they print."""
    start = ["import sys", "from abair.inference import lean_torch", "lean_torch.import_torch()", "import torch"]
    done = subprocess.run([sys.executable, "-c", "\n".join([*start, *lines])], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_a_photo_is_restored_without_the_modules_that_are_put_off() -> None:
    found = run(
        "import numpy as np",
        "from abair import Restorer",
        "photo = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)",
        "restorer = Restorer.load('paper')",
        "restorer.estimate(photo)",
        "assert (restorer(photo, weights={'noise': 1}).image != photo).any()",
        LEFT,
        "print(len(left), len(lean_torch.PUT_OFF))",
    )
    assert found == "5 5"


def test_torch_compiles_and_exports_though_modules_were_put_off() -> None:
    found = run(
        "x = torch.ones(2, 3)",
        "assert torch.compile(lambda x: x + 1, backend='eager')(x).sum() == 12",
        "torch.export.export(torch.nn.Linear(3, 3), (x,))",
        "torch.distributions.Normal(0.0, 1.0).sample()",
        LEFT,
        "print(left)",
    )
    assert found == "[]"


def test_another_version_of_torch_is_imported_as_usual() -> None:
    found = run("print(type(torch.export).__name__)")
    assert found == "_Module"
    usual = "import sys; from abair.inference import lean_torch; lean_torch.TESTED = frozenset(); "
    usual += "lean_torch.import_torch(); print(type(sys.modules['torch.export']).__name__)"
    done = subprocess.run([sys.executable, "-c", usual], capture_output=True, text=True)
    assert done.stdout.strip() == "module"
