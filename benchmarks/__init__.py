"""What is fast and what it is compared with: `python -m benchmarks`."""
