"""A frozen part of a model, in a graph of its own."""
