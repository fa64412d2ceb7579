"""What stands behind the command line `abair`: which inputs go to which outputs, and what is said about them."""
