"""Templates of Dockerfiles and of the configuration."""
