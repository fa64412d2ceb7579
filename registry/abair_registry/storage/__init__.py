"""What lies on disk: content-addressed files and the deployment that serves."""
