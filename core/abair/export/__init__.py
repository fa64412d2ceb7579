"""Networks as files for other programs: ONNX, and the package that darktable imports."""
