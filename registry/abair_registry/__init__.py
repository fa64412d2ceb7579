"""ABAIR's registry: which plugins were admitted, which deployment is live, since when, and why."""
