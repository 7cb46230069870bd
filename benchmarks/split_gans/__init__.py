"""Conditional generators that a fleet of weak devices trains together, and what they are compared with."""
