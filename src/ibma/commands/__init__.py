"""What the `ibma` command does; `ibma.cli` only reads the command line.

A module is a group of commands. They return text or raise IbmaError.
"""
