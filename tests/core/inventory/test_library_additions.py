"""A product has the name that the management library reports, and keeps it."""

import attrs

from biren_plugin.core.inventory.library_additions import ProductNames
from biren_plugin.core.model import Device, Inventory
from biren_plugin.core.parse.brml import CardReading
from tests.support.cards import GPU, HALF, card, listed

WHOLE = Device(attrs.evolve(card(0, 0), product="0x0106"), GPU)
HALVES = [Device(card(number, 1, parts=2), HALF) for number in (1, 2)]
INVENTORY = Inventory((listed(GPU, WHOLE), listed(HALF, *HALVES)))


def called(inventory: Inventory) -> list[str | None]:
    return [device.card.called for each in inventory.lists for device in each.devices]


def test_a_name_is_of_the_gpu_and_all_its_instances() -> None:
    readings = {1: CardReading(1, product_name="Biren166M")}
    assert called(ProductNames().add(INVENTORY, readings)) == ["0x0106", "Biren166M", "Biren166M"]


def test_a_library_that_does_not_answer_takes_no_name_away() -> None:
    names = ProductNames()
    names.add(INVENTORY, {0: CardReading(0, product_name="Biren166M")})
    assert called(names.add(INVENTORY, {})) == ["Biren166M", None, None]
    names.add(Inventory((listed(HALF, *HALVES),)), {})
    assert called(names.add(INVENTORY, {})) == ["0x0106", None, None], "another GPU may come"


def test_without_names_the_inventory_stays_as_it_is() -> None:
    assert ProductNames().add(INVENTORY, {0: CardReading(0)}) is INVENTORY
