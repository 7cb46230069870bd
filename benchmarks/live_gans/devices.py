"""Six devices of two domains and two strengths, out of the ten that the comparison of methods has."""

from collections.abc import Sequence

from benchmarks.split_gans.scenario import Domain, Participant, unlike_devices

OF_DOMAIN = 3


def six_devices(domains: Sequence[Domain], seed: int) -> list[Participant]:
    """Three of each domain. Three have the deepest cut, the others keep blocks 2 and 4 of both networks."""
    devices = unlike_devices(domains, seed).devices
    return [
        device for domain in domains for device in [each for each in devices if each.domain == domain.name][:OF_DOMAIN]
    ]
