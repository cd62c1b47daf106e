"""The page cache: what is cached of a file, and how a file is read into it."""
