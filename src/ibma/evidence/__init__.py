"""Pack and check evidence: the committed records and predictions behind a report."""
