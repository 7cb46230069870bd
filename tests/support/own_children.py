"""Processes that a test starts: whatever else runs below the test program, such as a database's, is not among them."""

import psutil


class OwnChildren:
    """Of this process, without those that were there when this was made."""

    def __init__(self) -> None:
        self._others = set(psutil.Process().children())

    def direct(self) -> list[psutil.Process]:
        """The children."""
        return [child for child in psutil.Process().children() if child not in self._others]

    def all(self) -> list[psutil.Process]:
        """The children, each followed by those below it."""
        return [each for child in self.direct() for each in (child, *child.children(recursive=True))]
