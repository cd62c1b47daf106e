"""What the builder renders: the Dockerfile of an image, and the configuration file that ``init`` writes."""
