"""For every test: a limit in real time, a patient clock, and a stand-in for the management library."""

import inspect
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from trio.testing import MockClock

from tests.brml import STATE_VARIABLE, BrmlState, build_stand_in
from tests.support.clocks import patient_autojump_clock

pytest_plugins = ["tests.support.time_limit"]

# No example has a deadline: on a busy machine, hypothesis' 200 ms fail without a fault. The examples are
# the same in each run, as every test here; HYPOTHESIS_PROFILE=explore tries others.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
# Which rules hold does not depend on the Python: one of them tries many examples, the others some.
hypothesis.settings.register_profile("brief", deadline=None, derandomize=True, max_examples=20)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def autojump_clock(request: pytest.FixtureRequest) -> MockClock:
    """Replace pytest-trio's clock, which jumps while a thread is running.

    pytest-trio looks for a clock among the test's own arguments only.
    """
    own = inspect.signature(request.function).parameters
    assert "autojump_clock" in own, "without this argument of its own, the test runs in real time"
    return patient_autojump_clock()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a directory for sockets, whose paths have at most 107 bytes: pytest's `tmp_path` may be too long."""
    with tempfile.TemporaryDirectory(prefix="br") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def brml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a current library."""
    return build_stand_in(tmp_path_factory.mktemp("brml"))


@pytest.fixture(scope="session")
def old_brml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that lacks several functions."""
    return build_stand_in(tmp_path_factory.mktemp("old-brml"), old=True)


@pytest.fixture(scope="session")
def brml_state_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library in this process reads what to say.

    One path for all tests: the environment must not change while a thread looks into it.
    """
    path = tmp_path_factory.mktemp("brml-state") / "state"
    os.environ[STATE_VARIABLE] = str(path)
    return path


@pytest.fixture
def brml(brml_state_file: Path) -> Iterator[BrmlState]:
    """What the library in this process says: no GPU yet."""
    state = BrmlState(brml_state_file)
    yield state
    state.close()
