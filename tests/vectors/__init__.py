"""Test vectors of docs/wire-format.md: JSON that any implementation can read, each with its input and its bytes."""
