"""What changes what is live."""
