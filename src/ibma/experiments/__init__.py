"""Experiments: what the stages run on trained or untrained networks."""
