"""The documents: what is generated is fresh, what is linked is there, what is written as a command is one."""
