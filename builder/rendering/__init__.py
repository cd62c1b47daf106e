"""The rendering of templates, with quoting for each grammar."""
