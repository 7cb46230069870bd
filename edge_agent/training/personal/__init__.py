"""Models of a device's own: what a round of a task with `[personal]` trains besides, or otherwise. One file a method.

`training` has the table; `docs/personal-models.md` says what each of them is.
"""
