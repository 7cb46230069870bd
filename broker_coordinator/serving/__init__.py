"""A running coordinator: intake, version maker and file server; metrics, evaluation and replay."""
