"""Reads many names in one thread; a read that hangs keeps that thread, and a new one reads the rest.

1. One thread reads all names in turn (a thread for each card and scan costs more than the whole idle
   budget).
2. A name that holds up the thread for longer than `SHARED` keeps it, and a new thread reads the rest.
   From then on that name is read in a thread of its own, one at most, until it is quick again. So a slow
   name delays the others by `SHARED` once. Each further slow name in the same scan has only `FOLLOWING`:
   when one read hangs, all may.
3. A name counts as hung once its read has taken `PATIENCE`. A late value is used when it arrives.
4. While the listing itself hangs, no other thread is started, and each scan raises `HostUnreadable`. If
   that thread returns from the listing and then hangs at a name, it is left to that name.
5. A scan that is likely to find nothing new may `begin` without a task that waits for it: on an idle node,
   waking the event loop would cost more than the reads. `look` goes on with a scan that was begun.
"""

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Generic, TypeVar

import outcome
import trio

from biren_plugin.errors import HostUnreadable, too_slow, why_no_thread
from biren_plugin.records import frozen

T = TypeVar("T")

SHARED: Final = 1.0
FOLLOWING: Final = 0.1
PATIENCE: Final = 5.0
"""Seconds."""
_STOPPED: Final = PATIENCE - SHARED
"""A task that wakes more than this many seconds late was stopped, and its threads with it (SIGSTOP, a
paused machine). Their time then starts again; otherwise the current read would count as hung at once."""


@frozen
class Round(Generic[T]):
    """The result of one scan."""

    values: Mapping[str, T]
    """By name; a name without a value no longer exists."""
    pending: frozenset[str] = frozenset()
    """Names whose read has not returned yet."""
    hung: frozenset[str] = frozenset()
    """The pending names whose read has taken `PATIENCE`."""


class PatientReads(Generic[T]):
    """Calls `read` for each of the `names`, which are listed again at each scan.

    Both functions are called in threads. `read` returns None for a name that has gone. `what` describes
    what is read, as in "/sys and /dev".
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
        """The thread of each slow name, while it runs."""
        self._slow: set[str] = set()
        """Names that have been slow, and get a thread of their own."""
        self._late: dict[str, T] = {}
        self._failure: Exception | None = None

    def begin(self, is_known: Callable[[Mapping[str, T]], bool]) -> "_Thread[T] | None":
        """Begin to read everything; None while names are slow, which needs `look`. Raises `HostUnreadable`.

        `is_known` is called in the thread with the values. If it returns True, no task is woken. Within
        `SHARED` the caller asks for the thread's `seconds`, and if there are none, it calls `look`.
        """
        if self._slow or self._late or self._listing is not None or self._failure is not None:
            return None
        return _Thread(self._list_quick, self._read, is_known)

    async def look(self, begun: "_Thread[T] | None" = None) -> Round[T]:
        """Read everything once. Raises `HostUnreadable`, and what `names` and `read` raise.

        `begun`: the scan that `begin` has begun, to go on with.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self._leave_late_listing()
        for name in self._slow - self._own.keys():
            self._give_thread(name, _Thread(partial(list, [name]), self._read))
        values: dict[str, T] = {}
        thread = begun if begun is not None else _Thread(self._list_quick, self._read)
        thread.attend()
        patience = SHARED
        while not await thread.is_quick(patience):
            if thread.at is None:
                self._listing = thread
                raise self._unreadable()
            rest = thread.leave()
            values |= thread.values.copy()  # in one step: the thread may be running again
            assert thread.at is not None  # it has finished the listing
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
        """Abandon a listing that hung and has returned: its names are old. Raises `HostUnreadable`."""
        thread = self._listing
        if thread is not None and not thread.finished.is_set():
            if thread.at is None or trio.current_time() - thread.since < SHARED:
                raise self._unreadable()
            thread.leave()
            assert thread.at is not None  # it has finished the listing
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
        except Exception as error:  # noqa: BLE001 - raised by the next scan
            self._failure = error
        if name in thread.values:
            self._late[name] = thread.values[name]
        if name not in thread.values or trio.current_time() - thread.since < SHARED:
            self._slow.discard(name)

    def _unreadable(self) -> HostUnreadable:
        return HostUnreadable(too_slow(f"reading {self._what}", PATIENCE, "driver"))


class _Thread(Generic[T]):
    """Reads names in turn in a thread, until all are read or the thread is left.

    `trio.to_thread` cannot wait again for a thread that it abandoned. This class can, and it shows which
    name is being read. Raises `HostUnreadable` if no thread can be started.
    """

    def __init__(
        self,
        names: Callable[[], Sequence[str]],
        read: Callable[[str], T | None],
        is_known: Callable[[Mapping[str, T]], bool] = lambda _values: False,
    ) -> None:
        self.at: str | None = None
        """The name that is being read; None while the names are listed."""
        self.since = trio.current_time()
        """When that read began."""
        self.values: dict[str, T] = {}
        self.finished = trio.Event()
        """Set for a task that attends, or when there is news."""
        self.seconds: float | None = None
        """How long the reads took, if they ended without news and without a task that attended."""
        self._began = self.since
        self._names = names
        self._read = read
        self._is_known = is_known
        self._has_news = True
        self._attended = False
        self._listed: Sequence[str] = ()
        self._place = 0
        """The number of listed names that were read or are being read."""
        self._left = False
        self._step = threading.Lock()
        self._clock = trio.lowlevel.current_clock()
        self._token = trio.lowlevel.current_trio_token()
        self._outcome: outcome.Outcome[None] | None = None
        self._then: Callable[[], None] = lambda: None
        try:
            trio.lowlevel.start_thread_soon(self._run, self._deliver, "patient_reads")
        except RuntimeError as error:
            raise HostUnreadable(why_no_thread(error)) from error

    async def beside(self, wait: Callable[[], Awaitable[bool]]) -> bool:
        """Return what `wait` returns; False if the thread reports news before."""
        with trio.CancelScope() as scope:
            self.when_finished(scope.cancel)
            return await wait()
        return False

    def attend(self) -> None:
        """Make the thread report its end, whatever it has found."""
        with self._step:
            self._attended = True
            has_ended = self.seconds is not None
        if has_ended:
            self._end(outcome.Value(None))
        now = trio.current_time()
        if now - self._began - SHARED > _STOPPED:
            self.since = now

    async def is_quick(self, patience: float) -> bool:
        """Return True once all names are read; False when one name has taken `patience`."""
        while not self.finished.is_set():
            until = self.since + (PATIENCE if self.at is None else patience)
            now = trio.current_time()
            if now >= until:
                return False
            # The thread may go on to the next name while this task sleeps; that name then has less time.
            wake_at = min(until, now + patience)
            with trio.move_on_at(wake_at):
                await self.finished.wait()
            if trio.current_time() - wake_at > _STOPPED:
                self.since = trio.current_time()
        return True

    def leave(self) -> Sequence[str]:
        """Make the thread stop after its current name, and return the names that it leaves unread."""
        with self._step:
            self._left = True
            return self._listed[self._place :]

    def when_finished(self, then: Callable[[], None]) -> None:
        """Call `then` when the thread has finished; at once if it already has."""
        if self.finished.is_set():
            then()
        else:
            self._then = then

    def result(self) -> None:
        """Raise what the thread's function raised; the thread must have finished."""
        assert self._outcome is not None
        self._outcome.unwrap()

    def _run(self) -> None:
        self._listed = self._names()
        for place, name in enumerate(self._listed, 1):
            with self._step:
                if self._left:
                    return
                self.at, self.since, self._place = name, self._clock.current_time(), place
            value = self._read(name)
            if value is not None:
                self.values[name] = value
        self._has_news = not self._is_known(self.values)

    def _deliver(self, result: outcome.Outcome[None]) -> None:
        with self._step:
            if not (self._has_news or self._attended):
                self.seconds = self._clock.current_time() - self._began
                return
        with suppress(trio.RunFinishedError):  # no task is left to use it
            self._token.run_sync_soon(self._end, result)

    def _end(self, result: outcome.Outcome[None]) -> None:
        self._outcome = result
        self.finished.set()
        self._then()
