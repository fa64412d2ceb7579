"""The three phases of training: backbone (I), adapters (II), estimator (III)."""
