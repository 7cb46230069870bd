"""Fewer numbers to train: `[compression]` of `task.toml` puts others in place of a module's matrices and kernels."""
