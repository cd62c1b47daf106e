"""The image's command ``warm``: keeps the files that a server's start reads in the page cache of its node."""
