"""How many examples a property is tried with, where the profile's number is not the right one."""

import hypothesis

_ALL = 100
"""Of hypothesis' own default, which a profile may make smaller."""
_FEWEST = 5


def examples(count: int) -> hypothesis.settings:
    """So many in a thorough run, and in another as much fewer as its profile asks for."""
    share = hypothesis.settings().max_examples / _ALL
    return hypothesis.settings(max_examples=max(_FEWEST, round(count * share)))
