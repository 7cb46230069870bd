"""Split learning between machines: the relay that carries sessions, and the helper that serves them.

The two know nothing of each other: the relay is a part of the coordinator, a helper is an agent of another kind.
"""
