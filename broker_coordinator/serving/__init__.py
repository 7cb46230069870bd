"""A running coordinator: takes in, makes versions, serves files."""
