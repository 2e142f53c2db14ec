"""Use IBMA on your own data: its bounds as losses, its networks as scikit-learn estimators.

This package reads neither params.yaml nor stages, and needs no DVC, MLflow, FAISS or pydantic.
"""
