"""Accepted updates in, the next version out. Pure."""
