"""Photos restored one after the other: here, or by the workers of a Ray cluster."""
