"""Plugins that must be refused: each does one thing that a plugin must not do, and is fine otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.support.plugin_package import GOOD, HEAD, HOOK, Plugin, declaring, degrading, hook

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.model.lora import PREFIX, backbone_reference
from abair_registry.plugins.admission import Limits

QUICK = Limits(seconds=2.5)
"""For a plugin that hangs in the first run, which takes a third of a second."""


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Change the adapter's tensors."""

    def changed(folder: Path) -> None:
        path = folder / "adapters" / "tiny" / WEIGHTS_FILE
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return changed


def filled(value: float) -> Callable[[Path], object]:
    """One number of the adapter is `value`."""
    return weights(lambda tensors: next(iter(tensors.values())).view(-1).__setitem__(3, value))


def config(**changes: object) -> Callable[[Path], object]:
    """Change the adapter's config."""

    def changed(folder: Path) -> None:
        path = folder / "adapters" / "tiny" / CONFIG_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return changed


def content(name: str, data: bytes) -> Callable[[Path], object]:
    """Replace one of the adapter's files."""
    return lambda folder: (folder / "adapters" / "tiny" / name).write_bytes(data)


def cut(folder: Path) -> None:
    """End the weights in their middle."""
    path = folder / "adapters" / "tiny" / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1000])


def only_a_pickle(folder: Path) -> None:
    """As PEFT wrote adapters before safetensors."""
    adapter = folder / "adapters" / "tiny"
    (adapter / WEIGHTS_FILE).unlink()
    torch.save({}, adapter / "adapter_model.bin")


def outside(folder: Path) -> Path:
    """The adapters, moved out of the package."""
    away = folder.parent / "elsewhere"
    (folder / "adapters").rename(away)
    return away


def link_folder(folder: Path) -> None:
    """The adapters lie elsewhere and are linked to."""
    (folder / "adapters").symlink_to(outside(folder))


def link_file(folder: Path) -> None:
    """One file lies elsewhere and is linked to."""
    path = folder / "adapters" / "tiny" / WEIGHTS_FILE
    path.rename(folder.parent / "elsewhere.safetensors")
    path.symlink_to(folder.parent / "elsewhere.safetensors")


def link_circle(folder: Path) -> None:
    """A link that leads to itself."""
    outside(folder)
    (folder / "adapters").symlink_to(folder / "adapters")


def pipe(folder: Path) -> None:
    """A file that never ends where one reads it."""
    import os

    path = folder / "adapters" / "tiny" / WEIGHTS_FILE
    path.unlink()
    os.mkfifo(path)


FORGED = """
FORGED = b'{"token": "%s", "kind": "KIND", "body": BODY}' + bytes([10])
def forge():
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, FORGED)
        except OSError:
            pass
"""
FORGED_DECLARATION = FORGED.replace("KIND", "declarations").replace("BODY", "[]")
FORGED_TRIAL = FORGED.replace("KIND", "speeds").replace("BODY", '{"frost": 900.0}')
OVERWRITE = 'with open(HERE / "adapters/tiny/adapter_config.json", "a") as file: file.write(" ")'
ORPHAN = 'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session={new})'

FAMILY: dict[str, Plugin] = {
    # --- it hangs, ends, crashes, takes, prints
    "hangs at import": Plugin("did not finish within 2.5 s: it was ", HEAD + "time.sleep(600)", limits=QUICK),
    "spins at import": Plugin("did not finish within", HEAD + "while True: pass", limits=QUICK),
    "swallows every exception": Plugin(
        "did not finish within",
        HEAD + "while True:\n    try:\n        x = bytearray(1 << 40)\n    except BaseException:\n        pass",
        limits=QUICK,
    ),
    "hangs in the hook": Plugin("did not finish within", hook("time.sleep(600)"), limits=QUICK),
    "hangs in the synthesiser": Plugin(
        "did not finish within", synthesis=degrading("time.sleep(600)"), limits=Limits(seconds=6)
    ),
    "ignores signals and hangs": Plugin(
        "did not finish within",
        HEAD + "for s in (15, 2, 14): signal.signal(s, signal.SIG_IGN)\ntime.sleep(600)",
        limits=QUICK,
    ),
    "waits for input": Plugin("EOFError", HEAD + "input()"),
    "segmentation fault at import": Plugin(
        "crashed with SIGSEGV while importing abair_frost", HEAD + "os.kill(os.getpid(), signal.SIGSEGV)"
    ),
    "aborts in the hook": Plugin("crashed with SIGABRT", hook("os.abort()")),
    "segmentation fault in the synthesiser": Plugin(
        "crashed with SIGSEGV while trying its synthesiser",
        synthesis=degrading("import ctypes; ctypes.string_at(0)"),
    ),
    "sys.exit(0) at import": Plugin("cannot be imported: SystemExit: 0", HEAD + "sys.exit(0)"),
    "sys.exit(0) in the hook": Plugin("abair_degradations failed: SystemExit: 0", hook("sys.exit(0)")),
    "sys.exit(0) in the synthesiser": Plugin("SystemExit: 0", synthesis=degrading("sys.exit(0)")),
    "os._exit(0) at import": Plugin("ended the process with code 0 while importing", HEAD + "os._exit(0)"),
    "os._exit(3) in the hook": Plugin(
        "with code 3 while importing abair_frost and asking for its degradations; its last words: no licence",
        hook("print('no licence', flush=True); os._exit(3)"),
    ),
    "os._exit(0) in the synthesiser": Plugin(
        "ended the process with code 0 while trying", synthesis=degrading("os._exit(0)")
    ),
    "raises KeyboardInterrupt": Plugin("the process met KeyboardInterrupt", HEAD + "raise KeyboardInterrupt"),
    "eats memory at import": Plugin(
        "cannot be imported: MemoryError",
        HEAD + "held = []\nwhile True: held.append(bytearray(1 << 24))",
        limits=Limits(memory_mib=200),
    ),
    "eats memory in the synthesiser": Plugin(
        "the synthesiser failed on a photo of shape (3, 128, 128)",
        synthesis=degrading("while True: held.append(torch.ones(1 << 22))", "held = []"),
        limits=Limits(memory_mib=200),
    ),
    "fills the disk": Plugin(
        "OSError: [Errno 27] File too large",
        HEAD + "with open(os.environ['HOME'] + '/big', 'wb') as file:\n    while True: file.write(bytes(1 << 22))",
    ),
    "prints megabytes at import": Plugin("printed more than 256 KiB", GOOD + "print('x' * 5_000_000)"),
    "prints megabytes to the descriptor of stdout": Plugin(
        "printed more than 256 KiB", GOOD + "for _ in range(5000): os.write(1, b'x' * 1000)"
    ),
    "prints megabytes in the synthesiser": Plugin(
        "printed more than 256 KiB",
        synthesis=degrading("print('x' * 1_000_000, file=sys.stderr); return damaged"),
    ),
    "prints without end": Plugin("printed more than 256 KiB", HEAD + "while True: print('x' * 1000)"),
    # --- it starts processes
    "leaves a child at import": Plugin("left it running", GOOD + ORPHAN.format(new=False)),
    "leaves a child in a session of its own": Plugin("left it running", GOOD + ORPHAN.format(new=True)),
    "leaves a grandchild": Plugin(
        "left a process running",
        GOOD
        + "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(600)\n    os._exit(0)\nos.wait()",
    ),
    "forks at import": Plugin("left it running", GOOD + "os.fork()"),
    "forks in the synthesiser": Plugin("left it running", synthesis=degrading("os.fork(); return damaged")),
    "leaves a child that holds the pipes and dies": Plugin(
        "ended the process with code 0", GOOD + ORPHAN.format(new=True) + "\nos._exit(0)"
    ),
    # --- it asks to be run where nobody asked for it
    "answers for models:/": Plugin("found entry points in abair.fetchers, which", groups=("abair.fetchers",)),
    "is a plugin of ABAIR's libraries": Plugin(
        "found entry points in fsspec.specs, mlflow.tracking_store, pydantic, torch.backends, which libraries load",
        groups=("pydantic", "torch.backends", "mlflow.tracking_store", "fsspec.specs", "console_scripts"),
    ),
    "is run at every start of Python": Plugin("found frost.pth, which Python runs", beside="frost.pth"),
    "changes every start of Python": Plugin("found sitecustomize.py, which", beside="sitecustomize.py"),
    # --- its hooks and what they return
    "does not import": Plugin("ModuleNotFoundError: No module named 'no_such_module'", "import no_such_module"),
    "returns None": Plugin("returned None; expected a list of abair.Degradation", hook("return None")),
    "returns a dict": Plugin("returned {'name': 'frost'}", hook("return {'name': 'frost'}")),
    "returns strings": Plugin("returned ['frost']", hook("return ['frost']")),
    "returns nothing": Plugin("declares no degradation", hook("return []")),
    "returns what was never checked": Plugin(
        "", hook("return [Degradation.model_construct(name='frost', title=7, synthesizer=8, adapters=9, card=None)]")
    ),
    "misspells its hook": Plugin("found abair_degradation without a mark", HEAD + HOOK.replace("ions()", "ion()")[10:]),
    "marks a misspelt hook": Plugin("its hooks do not fit", HEAD + HOOK.replace("ions()", "ion()")),
    "has no hook": Plugin("found no hook in abair_frost", HEAD),
    "imports torch": Plugin("importing abair_frost imports torch", GOOD + "import torch"),
    "is called clean": Plugin("not 'clean'", declaring("name='clean'")),
    "takes a name": Plugin(
        "declares degradation noise, which belongs to distribution abair-noise",
        declaring("name='noise'"),
        taken={"noise": "abair-noise", "rain": "abair-rain"},
    ),
    "writes to the terminal": Plugin("control characters", declaring(r"title='Frost\x1b[2J'")),
    "declares without end": Plugin(
        "declares more than 1024 KiB",
        declaring("card=Card(authors=('A',), licence='MIT', training_data='x' * 2_000_000)"),
    ),
    "forges the answer": Plugin("wrote into the process's answer", HEAD + FORGED_DECLARATION + "forge()\nos._exit(0)"),
    "forges beside the answer": Plugin("wrote into the process's answer", GOOD + FORGED_DECLARATION + "forge()"),
    "forges the trial": Plugin(
        "wrote into the process's answer", synthesis=degrading("forge(); os._exit(0)", FORGED_TRIAL)
    ),
    "closes the answer": Plugin(
        "closed the process's answer while importing", HEAD + "os.closerange(3, 64)\ntime.sleep(600)"
    ),
    # --- its adapter
    "ships a pickle alone": Plugin("pickles are never read", change=only_a_pickle),
    "ships a pickle beside": Plugin(
        "adapter_model.bin: found a pickle", change=content("adapter_model.bin", b"\x80\x04N.")
    ),
    "ships a pickle under the good name": Plugin("not a safetensors file", change=content(WEIGHTS_FILE, b"\x80\x04N.")),
    "ships no adapter": Plugin("abair train adapter frost", change=lambda f: outside(f)),
    "another backbone's fingerprint": Plugin(
        "made for backbone", change=config(base_model_name_or_path=backbone_reference("tiny", "0" * 64))
    ),
    "a rank that is not the files'": Plugin("expected (8, ", change=config(r=8)),
    "a rank of a thousand": Plugin("found rank r = 1000", change=config(r=1000)),
    "NaN in the weights": Plugin("found NaN or infinite values", change=filled(float("nan"))),
    "infinity in the weights": Plugin("found NaN or infinite values", change=filled(float("inf"))),
    "NaN in the weights, and a reader that does not mind": Plugin(
        "found NaN or infinite values",
        GOOD + "import types\nsys.modules['abair.model.lora'] = types.ModuleType('abair.model.lora')",
        change=filled(float("nan")),
    ),
    "a tensor is missing": Plugin("missing base_model", change=weights(lambda t: t.pop(min(t)))),
    "a tensor too many": Plugin(
        "found tensor base_model.model.nowhere",
        change=weights(lambda t: t.__setitem__(f"{PREFIX}nowhere.lora_A.weight", torch.zeros(4, 4))),
    ),
    "a tensor of another shape": Plugin(
        "found shape (4, 1)", change=weights(lambda t: t.__setitem__(min(t), torch.zeros(4, 1)))
    ),
    "the weights are cut off": Plugin("damaged safetensors file", change=cut),
    "a header of a gigabyte": Plugin(
        "not a safetensors file", change=content(WEIGHTS_FILE, (1 << 30).to_bytes(8, "little") + b"{}")
    ),
    "a config that is no JSON": Plugin("cannot be read as JSON", change=content(CONFIG_FILE, b"rank: 4")),
    "a config of a megabyte": Plugin("expected at most 65536", change=content(CONFIG_FILE, b" " * (1 << 20))),
    "saves modules": Plugin("found modules_to_save switched on", change=config(modules_to_save=["output"])),
    "another kind of adapter": Plugin("found peft_type 'LOHA'", change=config(peft_type="LOHA")),
    "adapters outside by ..": Plugin(
        "leaves the plugin's folder", declaring("adapters=HERE / '..' / 'elsewhere'"), change=lambda f: outside(f)
    ),
    "adapters at an absolute path": Plugin("leaves the plugin's folder", declaring("adapters=Path('/etc')")),
    "adapters at a relative path": Plugin("expected an absolute path", declaring("adapters=Path('adapters')")),
    "adapters behind a link": Plugin("leaves the plugin's folder", change=link_folder),
    "weights behind a link": Plugin("leaves the plugin's folder", change=link_file),
    "a link in a circle": Plugin("", change=link_circle),
    "weights in a pipe": Plugin("is missing", change=pipe),
    "an adapter that nobody installed": Plugin(
        "none of the files that the distribution installed",
        HEAD
        + "import shutil\nshutil.copytree(HERE / 'adapters', HERE / 'made')\n"
        + declaring("adapters=HERE / 'made'"),
    ),
    "changes its adapter at import": Plugin("changed while the plugin was probed", GOOD + OVERWRITE),
    "changes its adapter in the synthesiser": Plugin(
        "changed its own file abair_frost/adapters/tiny/adapter_config.json",
        synthesis=degrading("return damaged", "HERE = Path(__file__).parent\n" + OVERWRITE),
    ),
    # --- its synthesiser
    "no such synthesiser": Plugin("cannot be loaded", declaring("synthesizer='abair_frost.synthesis:frosted'")),
    "a synthesiser that raises": Plugin("ZeroDivisionError: division by zero", synthesis=degrading("return 1 / 0")),
    "identity": Plugin("the photo came back unchanged", synthesis=degrading("return clean.clone()")),
    "unseeded": Plugin(
        "two results for seed", synthesis=degrading("return damaged * 0.9 + torch.rand(damaged.shape) * 0.1")
    ),
    "the same for every seed": Plugin("different results for 4 seeds", synthesis=degrading("return clean * 0.5 + 0.1")),
    "seeds the global generator": Plugin(
        "global generator", synthesis=degrading("torch.manual_seed(generator.initial_seed()); return damaged")
    ),
    "another shape": Plugin("found shape", synthesis=degrading("return damaged[:, :1]")),
    "another type of numbers": Plugin("found torch.float64", synthesis=degrading("return damaged.double()")),
    "no tensor": Plugin("found list, expected a tensor", synthesis=degrading("return damaged.tolist()")),
    "out of range": Plugin("expected [0, 1]", synthesis=degrading("return damaged * 2")),
    "makes NaN": Plugin("found NaN or infinite values", synthesis=degrading("return damaged / 0 * 0")),
    "changes its input": Plugin("modified in place", synthesis=degrading("return clean.copy_(damaged)")),
    "raises above 200 pixels": Plugin(
        "the synthesiser failed on a photo of shape (3, 512, 512): ZeroDivisionError",
        synthesis=degrading("return damaged if clean.shape[-1] < 200 else 1 / 0"),
    ),
    "NaN above 200 pixels": Plugin(
        "size (211, 512), seed 0: found NaN",
        synthesis=degrading("return damaged if max(clean.shape) < 200 else damaged / 0 * 0"),
    ),
    "slow above 200 pixels": Plugin(
        "s for a scene of 512x512 pixels, expected at most 1.6",
        synthesis=degrading("time.sleep(1.7 * (clean.shape[-1] > 200)); return damaged"),
    ),
    "NaN from the ninetieth small photo on": Plugin(
        "call 91: found NaN",
        synthesis=degrading(
            "seen.extend([1] * (clean.shape[1] == 48)); return damaged / (len(seen) <= 90)", "seen = []"
        ),
    ),
    "another result with more threads": Plugin(
        "two results with 1 and 4 threads", synthesis=degrading("return damaged * (1 - 0.02 * torch.get_num_threads())")
    ),
    "another result at another hour": Plugin(
        "or at another time", synthesis=degrading("return damaged * (0.9 - (time.time() // 3600) % 5 / 50)")
    ),
    "declares nine degradations": Plugin(
        "declares 9 degradations, expected at most 8", hook("return [declare(name=f'frost-{n}') for n in range(9)]")
    ),
    "far too slow": Plugin("crops of 128x128 pixels a second", synthesis=degrading("time.sleep(0.3); return damaged")),
}
