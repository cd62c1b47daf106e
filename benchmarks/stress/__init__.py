"""Programs that start images again and again, and look at what goes wrong."""
