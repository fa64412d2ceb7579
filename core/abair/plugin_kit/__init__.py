"""For people who write plugins: a complete package from a template, and a sheet of what its synthesiser does."""
