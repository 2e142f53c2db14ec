"""Results: records and the statistics over them."""
