#!/usr/bin/env bash
# A model that torch.onnx.export writes holds, for each node, the Python stack at which it was made:
# the paths of the files on this machine, the home folder's name in them, and the lines of code. It
# is in `metadata_props`, which viewers rarely show and no option leaves out. ONNXProgram.save writes
# it too, and `onnx.checker` has nothing to say. It is half of this network's file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2
mkdir "$folder/home-of-somebody"
cat > "$folder/home-of-somebody/secret_project.py" <<'PY'
import torch


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(8)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image) + image  # a remark for nobody else
PY
cd "$folder/home-of-somebody"
../venv/bin/python - <<'PY'
from importlib.metadata import version

import onnx
import torch
from secret_project import Network

print("torch", version("torch"), "onnx", version("onnx"), "onnxscript", version("onnxscript"))
program = torch.onnx.export(Network().eval(), (torch.rand(1, 3, 16, 16),), dynamo=True, verbose=False)
program.save("network.onnx", external_data=False)
written = open("network.onnx", "rb").read()
model = onnx.load("network.onnx")
for node in model.graph.node:
    node.ClearField("metadata_props")
bare = model.SerializeToString()
print(f"written: {len(written)} bytes, without the nodes' metadata {len(bare)}")
for words in ("home-of-somebody/secret_project.py", "a remark for nobody else"):
    print(f"{words!r}: {written.count(words.encode())} times in the file, {bare.count(words.encode())} without the nodes' metadata")
assert b"home-of-somebody/secret_project.py" in written, "torch.onnx's behaviour has changed"
assert b"home-of-somebody/secret_project.py" not in bare, "the paths are elsewhere, too"
PY
