"""Networks and their files: backbone, LoRA adapters, estimator."""
