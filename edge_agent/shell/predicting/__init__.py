"""Answers to predictions, from a child that lives while somebody asks."""
