"""Two devices with one key and name, as with a copied card, are told from one whose database was restored."""

from broker_coordinator.storage.device_registry import DeviceRegistry
from fleet_protocol.errors import Reason
from tests.support.bench import Bench
from tests.support.device import SigningDevice


def test_key_that_two_devices_use_is_shown_once_and_a_restored_device_is_not(database, bundle, caplog) -> None:
    bench, card, restored = Bench(database, bundle), SigningDevice("kitchen-pi"), SigningDevice("garden-pi")
    bench.handle(card, card.enrolment())
    bench.handle(restored, restored.enrolment(), *(restored.update(number) for number in range(1, 9)))
    numbers = {"original": 0, "copy": 0}
    reused = 0
    for turn in range(8):
        who = ("original", "copy")[turn % 2]
        numbers[who] += 1
        bench.said()
        bench.handle(card, card.update(numbers[who], loss=0.25 + turn))
        (receipt,) = bench.receipts()
        if receipt.reason == Reason.SEQUENCE_REUSED:
            reused += 1
            numbers[who] = receipt.highest_sequence + 1
            bench.handle(card, card.update(numbers[who], loss=0.25 + turn))
        bench.make_versions()
    assert reused >= 4
    bench.handle(restored, *(restored.update(number, loss=0.125) for number in range(1, 9)))
    bench.handle(restored, *(restored.update(number) for number in range(9, 12)))
    assert caplog.text.count("event=key_used_twice") == 1
    registry = DeviceRegistry(bench.journal.engine)
    assert registry.used_twice() == {"kitchen-pi"}
    registry.revoke("kitchen-pi")
    assert registry.used_twice() == set()
