"""Is this host fit for building and running images, and for one image in particular?

One module per topic holds the probes, ``checks`` lists them, ``table`` grades what they observe, ``run`` runs them.
"""
