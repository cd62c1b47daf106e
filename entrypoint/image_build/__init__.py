"""Steps that run in an image while it is built."""
