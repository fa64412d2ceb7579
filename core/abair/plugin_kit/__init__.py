"""For authors of plugins: a package from a template, a preview, and the adapter's report."""
