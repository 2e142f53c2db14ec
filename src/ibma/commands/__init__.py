"""Do the work of the `ibma` command; `ibma.cli` reads the command line.

A module is a group of commands. They return text or raise IbmaError.
"""
