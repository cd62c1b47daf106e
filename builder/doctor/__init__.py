"""Is this host fit for building and running images, and for one image in particular?

Modules by subject look, ``table`` says how bad what they saw is, ``examination`` bounds them in time.
"""
