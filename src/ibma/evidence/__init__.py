"""Evidence: what is committed so that a stranger can check the reports."""
