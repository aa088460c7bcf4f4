"""Reads many things in one thread; what hangs keeps the thread, and everything else is read on.

1. One thread reads everything in turn (a thread for each card and look costs more than the whole
   idle budget).
2. What holds it up for longer than `SHARED` keeps it, and a new thread goes on with the rest. From
   then on it is read in a thread of its own, of which there is one at most, until it is quick again.
   So it costs the others `SHARED` once. A further one in the same look is left after `FOLLOWING`
   already: when one hangs, all may.
3. It counts as hung once it has taken `PATIENCE`. What a late thread brings counts when it comes.
4. When the listing itself hangs there is no other thread: each look says so until it comes back. A
   thread that comes back from it and hangs at a name is that name's, and costs nobody else anything.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Generic, TypeVar

import attrs
import outcome
import trio

from biren_plugin.errors import HostUnreadable

T = TypeVar("T")

SHARED: Final = 1.0
FOLLOWING: Final = 0.1
PATIENCE: Final = 5.0
"""Seconds."""
_STOPPED: Final = PATIENCE - SHARED
"""Who wakes later by more than this many seconds was stopped, and its threads with it, as by SIGSTOP or
a paused machine: their time starts again, or what is being read would count as hung at once."""


@attrs.frozen
class Round(Generic[T]):
    """What one look brought."""

    values: Mapping[str, T]
    """By name; a name without a value was not there to be read."""
    pending: frozenset[str] = frozenset()
    """Names whose reading has not come back yet."""
    hung: frozenset[str] = frozenset()
    """Those of them that have taken `PATIENCE`."""


class PatientReads(Generic[T]):
    """Reads, by `read`, each of the `names` that are listed again at each scan.

    Both are called in threads. `read` gives None for what is not there. `what` says what is read, as
    in "/sys and /dev".
    """

    def __init__(
        self, names: Callable[[], Sequence[str]], read: Callable[[str], T | None], what: str
    ) -> None:
        self._names = names
        self._read = read
        self._what = what
        self._listing: _Thread[T] | None = None
        """The thread whose listing hung."""
        self._own: dict[str, _Thread[T]] = {}
        """Threads that one name has for itself."""
        self._slow: set[str] = set()
        """Names that have been slow, and get such a thread."""
        self._late: dict[str, T] = {}
        self._failure: Exception | None = None

    async def look(self) -> Round[T]:
        """One look at everything. Raises `HostUnreadable`, and what `names` and `read` raise."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self._leave_late_listing()
        for name in self._slow - self._own.keys():
            self._give_thread(name, _Thread(partial(list, [name]), self._read))
        values: dict[str, T] = {}
        thread = _Thread(self._list_quick, self._read)
        patience = SHARED
        while not await thread.is_quick(patience):
            if thread.at is None:
                self._listing = thread
                raise self._unreadable()
            rest = thread.leave()
            values |= thread.values.copy()  # in one step: the thread may be at work again
            assert thread.at is not None  # it was not listing, and cannot go back to that
            self._give_thread(thread.at, thread)
            thread = _Thread(partial(list, rest), self._read)
            patience = FOLLOWING
        thread.result()
        values |= thread.values
        values |= self._late
        self._late = {}
        pending = {name: thread for name, thread in self._own.items() if name not in values}
        long_ago = trio.current_time() - PATIENCE
        return Round(
            values,
            frozenset(pending),
            frozenset(name for name, thread in pending.items() if thread.since <= long_ago),
        )

    def _leave_late_listing(self) -> None:
        """What it lists is old, and what it reads is not waited for. Raises `HostUnreadable`."""
        thread = self._listing
        if thread is not None and not thread.finished.is_set():
            if thread.at is None or trio.current_time() - thread.since < SHARED:
                raise self._unreadable()
            thread.leave()
            assert thread.at is not None  # it was not listing, and cannot go back to that
            self._give_thread(thread.at, thread)
        self._listing = None

    def _list_quick(self) -> list[str]:
        return [name for name in self._names() if name not in self._slow]

    def _give_thread(self, name: str, thread: "_Thread[T]") -> None:
        self._slow.add(name)
        self._own[name] = thread
        thread.when_finished(lambda: self._take_back(name, thread))

    def _take_back(self, name: str, thread: "_Thread[T]") -> None:
        del self._own[name]
        try:
            thread.result()
        except Exception as error:  # noqa: BLE001 - raised by the next look
            self._failure = error
        if name in thread.values:
            self._late[name] = thread.values[name]
        if name not in thread.values or trio.current_time() - thread.since < SHARED:
            self._slow.discard(name)

    def _unreadable(self) -> HostUnreadable:
        return HostUnreadable(
            f"reading {self._what} takes more than {PATIENCE:g} s, as when a driver hangs; "
            "see `dmesg` on the node"
        )


class _Thread(Generic[T]):
    """Reads names in turn in a thread, until it is through or is left.

    `trio.to_thread` cannot go back to a thread that it gave up waiting for; this one can be waited
    for again, and says where it is. Raises `HostUnreadable` where no thread is available.
    """

    def __init__(self, names: Callable[[], Sequence[str]], read: Callable[[str], T | None]) -> None:
        self.at: str | None = None
        """The name that is being read; None while they are listed."""
        self.since = trio.current_time()
        """Since when it has been there."""
        self.values: dict[str, T] = {}
        self.finished = trio.Event()
        self._names = names
        self._read = read
        self._rest: Sequence[str] = ()
        self._left = False
        self._step = threading.Lock()
        self._clock = trio.lowlevel.current_clock()
        self._token = trio.lowlevel.current_trio_token()
        self._outcome: outcome.Outcome[None] | None = None
        self._then: Callable[[], None] = lambda: None
        try:
            trio.lowlevel.start_thread_soon(self._run, self._deliver, "patient_reads")
        except RuntimeError as error:  # as Python says EAGAIN: the node's fault, and no bug
            raise HostUnreadable(
                f"{error}: processes have run out on the node, or in the pod's cgroup (pids.max)"
            ) from error

    async def is_quick(self, patience: float) -> bool:
        """True once it is through; False when it has been at one name for `patience`."""
        while not self.finished.is_set():
            until = self.since + (PATIENCE if self.at is None else patience)
            now = trio.current_time()
            if now >= until:
                return False
            # It may go on to the next name meanwhile, and have less time for that.
            wake_at = min(until, now + patience)
            with trio.move_on_at(wake_at):
                await self.finished.wait()
            if trio.current_time() - wake_at > _STOPPED:
                self.since = trio.current_time()
        return True

    def leave(self) -> Sequence[str]:
        """It stops after the name that it is at; the names that are left to others."""
        with self._step:
            self._left = True
            return self._rest

    def when_finished(self, then: Callable[[], None]) -> None:
        """Calls `then` when it is through, at once if it is."""
        if self.finished.is_set():
            then()
        else:
            self._then = then

    def result(self) -> None:
        """Raises what its function raised; it must have finished."""
        assert self._outcome is not None
        self._outcome.unwrap()

    def _run(self) -> None:
        names = self._names()
        for place, name in enumerate(names, 1):
            with self._step:
                if self._left:
                    return
                self.at, self.since = name, self._clock.current_time()
                self._rest = names[place:]
            value = self._read(name)
            if value is not None:
                self.values[name] = value

    def _deliver(self, result: outcome.Outcome[None]) -> None:
        with suppress(trio.RunFinishedError):  # nobody is left who wants it
            self._token.run_sync_soon(self._end, result)

    def _end(self, result: outcome.Outcome[None]) -> None:
        self._outcome = result
        self.finished.set()
        self._then()
