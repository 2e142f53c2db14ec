"""Features: from raw samples to the arrays that training reads."""
