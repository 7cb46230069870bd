"""Measurements that print one JSON object as their last line: `python -m benchmarks.<name>`."""
