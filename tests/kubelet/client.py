"""What tests use: a kubelet in a process of its own, its events, and waiting for them.

Nothing here sleeps, and nothing waits for ever: each wait ends with what it waited for, or with
an AssertionError that shows the last events. grpc and the messages are not imported, so that a
test may load the plugin's own.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

Event = dict[str, Any]
Found = TypeVar("Found")
DEADLINE: Final = 30.0
"""Seconds for each wait: what a daemon may take, on a busy machine too."""
_ROOT = Path(__file__).parents[2]
_SHOWN = 15
_COVERAGE = "COVERAGE_PROCESS_CONFIG"
"""With this variable, coverage measures a process too."""


def _environment() -> dict[str, str]:
    """Without coverage, which takes as long again as a kubelet's start: nothing of the plugin runs there."""
    kept = {name: value for name, value in os.environ.items() if name != _COVERAGE}
    return kept | {"GRPC_VERBOSITY": "NONE"}


class KubeletProcess:
    """A kubelet on `folder`; as a context manager it runs inside the block.

    `flags` are those of `python -m tests.kubelet`, such as `"--dials", "after"`.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder.absolute()
        self.flags = flags
        self.events: list[Event] = []
        """Every event so far, those of earlier processes of this kubelet included."""
        self._first = 0
        self._answers: dict[int, Event] = {}
        self._asked = 0
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._running = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self, timeout: float = DEADLINE) -> None:
        """Start the process and wait until it listens."""
        assert self._process is None, "this kubelet runs already"
        self._first = len(self.events)
        self._running = True
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kubelet", str(self.folder), *self.flags],
            cwd=_ROOT,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self.wait_for_event("listening", timeout=timeout)

    def stop(self) -> None:
        """Stop as a kubelet stops: streams just end, `kubelet.sock` stays."""
        self.command("stop")
        self._reap()

    def kill(self) -> None:
        """End the process at once; harmless if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def restart(self) -> None:
        """Stop, and start a new kubelet, which wipes the sockets."""
        self.stop()
        self.start()

    def signal(self, number: int) -> None:
        """Send the process a signal, such as SIGSTOP; until SIGCONT it obeys no command."""
        assert self._process is not None, "not running"
        self._process.send_signal(number)

    def mark(self) -> int:
        """The place in `events` of whatever comes next, for `since`."""
        with self._news:
            return len(self.events)

    def wait_for(
        self,
        predicate: Callable[[Event], bool],
        timeout: float = DEADLINE,
        *,
        since: int | None = None,
        what: str = "an event",
    ) -> Event:
        """The first event that `predicate` accepts, of this process or after `since`."""

        def look() -> Event | None:
            start = self._first if since is None else since
            return next((event for event in self.events[start:] if predicate(event)), None)

        return self._wait_until(look, timeout, what)

    def wait_for_event(
        self, name: str, timeout: float = DEADLINE, *, since: int | None = None, **fields: Any
    ) -> Event:
        """The first event of that name with these fields; `since` as in `wait_for`."""
        wanted = {"event": name, **fields}
        return self.wait_for(
            lambda event: wanted.items() <= event.items(), timeout, since=since, what=str(wanted)
        )

    def wait_for_list(
        self,
        resource: str,
        healthy: Collection[str] | int | None = None,
        unhealthy: Collection[str] | int | None = None,
        timeout: float = DEADLINE,
        *,
        since: int | None = None,
    ) -> Event:
        """The latest list, once it holds exactly these ids (or so many) on an open stream.

        None stands for any. A list that came before `since` does not count.
        """

        def look() -> Event | None:
            found = self._latest(resource, self._first if since is None else since)
            return found if found and _holds(found, healthy, unhealthy) else None

        what = f"a list of {resource} with healthy={healthy} and unhealthy={unhealthy}"
        return self._wait_until(look, timeout, what)

    def latest(self, resource: str) -> Event | None:
        """The last list of `resource`, unless the stream that brought it has ended."""
        with self._news:
            return self._latest(resource, self._first)

    def command(self, do: str, timeout: float = DEADLINE, **fields: Any) -> Event:
        """Have the kubelet do something, and return its answer, be it `ok` or not."""
        return self.answer(self.send(do, **fields), timeout)

    def send(self, do: str, **fields: Any) -> int:
        """Have the kubelet do something without waiting; returns the number for `answer`."""
        assert self._process is not None, "not running"
        assert self._process.stdin is not None
        with self._news:
            self._asked += 1
            number = self._asked
            self._process.stdin.write(json.dumps({"id": number, "do": do, **fields}) + "\n")
            self._process.stdin.flush()
        return number

    def answer(self, number: int, timeout: float = DEADLINE) -> Event:
        """The answer to the command of that number."""
        found = self._wait_until(
            lambda: self._answers.get(number), timeout, f"the answer to command {number}"
        )
        assert "bug" not in found, found["bug"]
        return found

    def admit(
        self,
        resource: str,
        count: int,
        must_include: Iterable[str] = (),
        pod: str = "default/pod",
    ) -> Event:
        """Admit a container; the answer has `ids` and `response`, or `code` and `details`."""
        return self.command(
            "admit", resource=resource, count=count, must_include=list(must_include), pod=pod
        )

    def allocate(self, resource: str, *requests: Sequence[str]) -> Event:
        """A raw Allocate, one list of ids for each container; the answer has `responses`."""
        return self.command("allocate", resource=resource, requests=[list(r) for r in requests])

    def state(self) -> Event:
        """What the kubelet believes: `devices`, `capacity`, `allocatable`, `allocated`."""
        return self.command("state")

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            heard = json.loads(line)
            with self._news:
                if "answer" in heard:
                    self._answers[heard["answer"]] = heard
                else:
                    self.events.append(heard)
                self._news.notify_all()
        with self._news:
            self._running = False
            self._news.notify_all()

    def _reap(self) -> None:
        assert self._process is not None
        assert self._reader is not None
        self._process.wait(timeout=10)
        self._reader.join(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def _wait_until(self, look: Callable[[], Found | None], timeout: float, what: str) -> Found:
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                if (found := look()) is not None:
                    return found
                remaining = deadline - time.monotonic()
                if not self._running or remaining <= 0:
                    break
                self._news.wait(remaining)
            shown = "\n".join(f"  {event}" for event in self.events[-_SHOWN:]) or "  none"
            why = f"in {timeout:g} s" if self._running else "before the kubelet's process ended"
        raise AssertionError(f"{what} did not come {why}; the last events:\n{shown}")

    def _latest(self, resource: str, since: int) -> Event | None:
        ended = set()
        for event in reversed(self.events[since:]):
            if event.get("resource") != resource:
                continue
            if event["event"] == "stream_ended":
                ended.add(event["stream"])
            if event["event"] == "list":
                return event if event["stream"] not in ended else None
        return None


def _holds(
    found: Event, healthy: Collection[str] | int | None, unhealthy: Collection[str] | int | None
) -> bool:
    for health, wanted in (("Healthy", healthy), ("Unhealthy", unhealthy)):
        ids = [device["id"] for device in found["devices"] if device["health"] == health]
        if isinstance(wanted, int):
            if len(ids) != wanted:
                return False
        elif wanted is not None and sorted(ids) != sorted(wanted):
            return False
    return True
