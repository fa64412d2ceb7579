"""What `abair-registry` can do, one module a group of commands."""
