"""A command line has the same meaning as for the vendor's parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.commands.flags import rewrite
from biren_plugin.core.setting_field import FALSE, TRUE
from biren_plugin.errors import UsageError

SWITCHES = ("--cdi-feature", "--help", "--version")


@pytest.mark.parametrize(
    ("given_words", "meant"),
    [
        ([], []),
        (["--pulse", "3", "--pulse=4"], ["--pulse=4"]),
        (["--pulse=4", "--pulse", "3"], ["--pulse", "3"]),
        (["--cdi-feature", "--cdi-feature=f"], ["--cdi-feature=false"]),
        (["--cdi-feature=T"], ["--cdi-feature=true"]),
        (["--cdi-feature", "devices"], ["--cdi-feature", "devices"]),
        (["devices", "--host-root", "--odd", "-h"], ["devices", "--host-root", "--odd", "-h"]),
        (["--pulse"], ["--pulse"]),
        (["--version=true"], ["--version"]),
        (["--help=0", "devices"], ["devices"]),
        (["--", "x"], ["--", "x"]),
    ],
)
def test_words_are_rewritten(given_words: list[str], meant: list[str]) -> None:
    assert rewrite(given_words, SWITCHES) == meant


@pytest.mark.parametrize("word", ["--cdi-feature=yes", "--cdi-feature=", "--cdi-feature=tRUE"])
def test_a_switch_accepts_only_the_values_of_parse_bool(word: str) -> None:
    with pytest.raises(UsageError, match="give true or false"):
        rewrite([word], SWITCHES)


def test_a_flag_with_underscores_is_refused() -> None:
    with pytest.raises(UsageError, match="write --cdi-feature"):
        rewrite(["--cdi_feature"], SWITCHES)


@given(st.lists(st.sampled_from(TRUE + FALSE), min_size=1))
def test_the_last_of_a_repeated_switch_counts(values: list[str]) -> None:
    (word,) = rewrite([f"--cdi-feature={value}" for value in values], SWITCHES)
    assert word == f"--cdi-feature={'true' if values[-1] in TRUE else 'false'}"
