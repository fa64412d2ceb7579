"""The three phases that make the weights: pre-training (I), adapters (II), estimator (III); one loop for all."""
