"""What a worker needs of memory, measured, beside what is estimated for it: `python -m benchmarks.worker_memory`."""
