"""The paper: its printed numbers and whether they agree. Knows nothing of our results."""
