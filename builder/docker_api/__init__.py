"""The seam to the Docker daemon."""
