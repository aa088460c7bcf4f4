"""`@frozen` makes what `attrs.frozen` makes, without compiling most of it."""

from typing import Any

import attrs
import pytest

from biren_plugin.records import frozen


def _classes() -> list[Any]:
    class Base:
        name: str
        place: int = 3
        _hidden: tuple[int, ...] = ()
        origin: Any = attrs.field(default=None, eq=False)
        secret: str = attrs.field(default="", repr=False)

    return [decorator(type("Card", (), dict(vars(Base)))) for decorator in (frozen, attrs.frozen)]


@pytest.mark.parametrize("card", _classes(), ids=["ours", "attrs"])
def test_records_compare_hash_and_print_by_their_fields(card: Any) -> None:
    one, other = card("card_0", origin="flag", secret="s"), card("card_0", origin={}, secret="s")
    assert one == other
    assert hash(one) == hash(other)
    assert one != card("card_0")
    assert one != card("card_1", secret="s")
    assert one != ("card_0", 3, (), "s")
    assert repr(one).endswith("Card(name='card_0', place=3, _hidden=(), origin='flag')")
    assert attrs.evolve(one, name="card_1") == card("card_1", secret="s")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.name = "card_1"
    with pytest.raises(TypeError):
        hash(card("card_0", secret=[]))


def test_a_record_keeps_the_methods_that_it_writes_itself() -> None:
    @frozen
    class Loose:
        text: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Loose) and other.text.lower() == self.text.lower()

        def __hash__(self) -> int:
            return hash(self.text.lower())

        def __repr__(self) -> str:
            return self.text

    assert {Loose("A"), Loose("a")} == {Loose("a")}
    assert f"{Loose('A')!r}" == "A"


def test_a_record_without_fields_equals_its_like() -> None:
    @frozen
    class Nothing:
        pass

    @frozen
    class Void:
        pass

    assert Nothing() == Nothing()
    assert Nothing() != Void()  # type: ignore[comparison-overlap]  # that is the question
