"""What the builder renders: an image's Dockerfile, the configuration file that ``init`` writes; and the Helm chart."""
