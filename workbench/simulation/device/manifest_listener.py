"""One simulated device's subscription to manifests: there while a version is waited for, as the shipped agent does."""

from collections.abc import Callable

from workbench.simulation.world import SimulatedWorld


class SimulatedListener:
    """Device `number`."""

    __slots__ = ("_number", "_world", "has_heard")

    def __init__(self, world: SimulatedWorld, number: int, *, has_heard: bool = False) -> None:
        self._world = world
        self._number = number
        self.has_heard = has_heard
        """Whether a manifest has come on this connection."""

    @property
    def is_listening(self) -> bool:
        """Whether the device hears of every version."""
        return self._number in self._world.listening

    def follow(self, hear: Callable[[int], None], *, connected: bool, waits: bool) -> None:
        """Subscribe where the device waits for a version, or has heard of none on this connection: that brings the
        retained manifest. Else unsubscribe. `hear` is called with the size of each manifest that comes to it.
        """
        self.has_heard = self.has_heard and connected
        listening = self._world.listening
        if not connected or (self.has_heard and not waits):
            listening.pop(self._number, None)
        elif self._number not in listening:
            listening[self._number] = hear
            self.has_heard = True
            hear(self._world.receive_manifest())

    def take(self) -> int:
        """The bytes that come for a look at the newest manifest: none where all of them come anyway."""
        self.has_heard = True
        return 0 if self._number in self._world.listening else self._world.receive_manifest()
