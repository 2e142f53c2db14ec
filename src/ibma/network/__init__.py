"""Networks: encoders, fusion, heads, tasks, bounds and the centroids they need."""
