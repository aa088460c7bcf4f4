"""Texts of HAMi's annotations, as they were recorded from its scheduler."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.core.hami.annotations import (
    annotating,
    annotation,
    is_usable_id,
    read_entries,
    read_lock,
    without_entries,
)
from tests.support.hami_books import EIGHT as RECORDED
from tests.support.hami_books import Books, Wish, read, write

# Eight free cards of two NUMA nodes; where the recording had fewer free, `used` are the others.
RECORDINGS = [
    (Wish((1,)), (), "card_7,Biren,0,0:;"),
    (Wish((2,)), ("card_7",), "card_6,Biren,0,0:card_5,Biren,0,0:;"),
    (Wish((1, 1)), (), "card_7,Biren,0,0:;card_6,Biren,0,0:;"),
    (Wish((0, 1)), ("card_7", "card_6"), ";card_5,Biren,0,0:;"),
    (
        Wish((1, 0, 2)),
        ("card_7", "card_6", "card_5"),
        "card_4,Biren,0,0:;;card_3,Biren,0,0:card_2,Biren,0,0:;",
    ),
    (Wish((1,), init=(0,)), (), ";card_7,Biren,0,0:;"),
    (Wish((2,), init=(1,)), (), "card_7,Biren,0,0:;card_7,Biren,0,0:card_6,Biren,0,0:;"),
    (Wish((1,), init=(2,)), (), "card_7,Biren,0,0:card_6,Biren,0,0:;card_7,Biren,0,0:;"),
    (Wish((1, 1), init=(1,)), (), "card_7,Biren,0,0:;card_7,Biren,0,0:;card_6,Biren,0,0:;"),
    (Wish((0,), init=(1,)), (), "card_7,Biren,0,0:;;"),
]


@pytest.mark.parametrize(("wish", "used", "text"), RECORDINGS)
def test_recorded_entries_read_as_the_cards_of_each_container(
    wish: Wish, used: tuple[str, ...], text: str
) -> None:
    books = Books()
    books.take_list(RECORDED)
    entries = books.fit(wish, used)
    assert entries is not None
    assert write(entries) == text, "the stand-in scheduler writes what the real one wrote"
    assert read_entries(text) == tuple(frozenset(each) for each in entries)


def test_an_emptied_entry_keeps_its_place() -> None:
    text = "card_7,Biren,0,0:;;card_6,Biren,0,0:card_5,Biren,0,0:;"
    first = without_entries(text, 1)
    assert first == ";;card_6,Biren,0,0:card_5,Biren,0,0:;"
    assert without_entries(first, 3) == ";;;"
    assert without_entries("card_7,Biren,0,0:;", 1) == ";", "as the contract has it"


@given(st.lists(st.lists(st.sampled_from([f"card_{n}" for n in range(12)]), unique=True)))
def test_what_the_scheduler_writes_is_read_back(entries: list[list[str]]) -> None:
    text = write(entries)
    assert [set(each) for each in read(text)] == [set(each) for each in read_entries(text)]


@given(st.text())
def test_no_text_raises(text: str) -> None:
    read_entries(text)
    read_lock(text)
    is_usable_id(text)


def test_a_lock_names_its_pod() -> None:
    lock = read_lock("2026-11-28T01:35:41Z,default,p1")
    assert lock is not None
    assert lock.is_for("default", "p1")
    assert not lock.is_for("default", "p10")


@pytest.mark.parametrize("text", ["", "2026-11-28T01:35:41Z", "a,b", "a,b,c,d", ",,", "t,ns,"])
def test_a_text_that_is_no_lock_names_no_pod(text: str) -> None:
    assert read_lock(text) is None


def test_ids_with_separators_are_lost_by_hami() -> None:
    assert is_usable_id("card_7")
    assert is_usable_id("/dev/vfio/7")
    assert not is_usable_id("0000:07:00.0")
    assert not is_usable_id("")


def test_an_annotation_that_is_missing_reads_empty() -> None:
    assert annotation({}, "a") == annotation({"metadata": {"annotations": None}}, "a") == ""
    assert annotation({"metadata": {"annotations": {"a": "b"}}}, "a") == "b"


def test_a_patch_removes_what_is_none() -> None:
    assert annotating({"a": None, "b": "c"}, uid="7") == {
        "metadata": {"annotations": {"a": None, "b": "c"}, "uid": "7"}
    }
