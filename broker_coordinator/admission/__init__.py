"""Bytes and what is known in, a typed decision out. Pure."""
