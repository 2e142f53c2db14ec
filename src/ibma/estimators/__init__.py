"""Use IBMA on data of your own: its bounds as losses, its networks as scikit-learn estimators.

This room knows neither params.yaml nor stages, and needs neither DVC, MLflow, FAISS nor pydantic.
"""
