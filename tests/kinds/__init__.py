"""Payload kinds that only tests have, each in three files. docs/payload-kinds.md walks through them."""
