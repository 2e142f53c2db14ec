"""Training: one network, one loop, one record."""
