"""`python -m tests.kubelet FOLDER`: a kubelet that is told what to do on stdin.

Each line on stdin is a command, `{"id": 1, "do": "admit", "resource": ..., "count": 2}`. Each
line on stdout is an event, `{"event": "list", ..., "at": 12.5}` (`at` is `time.monotonic()`, the
same clock in every process of a Linux node), or the answer to a command,
`{"answer": 1, "ok": true, ...}`. The end of stdin stops the kubelet.

Commands, and what they take besides `id`: `admit` (resource, count, must_include, pod), `allocate`
(resource, requests: a list of ids for each container), `free` (resource, ids), `remember` (resource,
ids, pod), `state`, `end_stream` (resource), `refuse_next_register` (text), `hold`, `release`, `stop`.
"""

import argparse
import contextlib
import json
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tests.kubelet.kubelet import Kubelet
from tests.kubelet.manager import AdmissionError
from tests.kubelet.pod_resources import PodResources

CALLS_THE_PLUGIN = {"admit", "allocate"}
"""Commands that may hang for as long as a plugin does: the others must not wait for them."""

_speaking = threading.Lock()


def say(fields: dict[str, Any]) -> None:
    """Write one line to stdout, whole."""
    with _speaking:
        print(json.dumps(fields), flush=True)


def tell(event: str, **fields: Any) -> None:
    """Report an event, with the time of now."""
    say({"event": event, **fields, "at": time.monotonic()})


def obey(kubelet: Kubelet, command: dict[str, Any]) -> None:
    """Carry `command` out and answer it, whatever happens."""
    answer: dict[str, Any] = {"answer": command.get("id")}
    try:
        answer |= {"ok": True, **perform(kubelet, command)}
    except AdmissionError as failure:
        answer |= {"ok": False, "code": failure.code, "details": failure.details}
        answer["message"] = str(failure)
    except Exception:  # noqa: BLE001 - the test that sent the command must hear of a bug here
        answer |= {"ok": False, "bug": traceback.format_exc()}
    say(answer)
    if command.get("do") == "stop":
        kubelet.stop()


def perform(kubelet: Kubelet, command: dict[str, Any]) -> dict[str, Any]:
    """The fields of the command's answer; raises AdmissionError."""
    match command["do"]:
        case "admit":
            ids, response = kubelet.manager.admit(
                command["resource"],
                command["count"],
                command.get("must_include", ()),
                command.get("pod", "default/pod"),
            )
            return {"ids": ids, "response": response}
        case "allocate":
            responses = kubelet.manager.allocate(command["resource"], command["requests"])
            return {"responses": responses}
        case "free":
            kubelet.manager.free(command["resource"], command["ids"])
        case "remember":
            kubelet.manager.remember(command["resource"], command["ids"], command["pod"])
        case "state":
            return kubelet.manager.state()
        case "end_stream":
            return {"ended": kubelet.end_stream(command["resource"])}
        case "refuse_next_register":
            kubelet.refuse_next_register(command["text"])
        case "hold":
            kubelet.hold()
        case "release":
            kubelet.release()
        case "stop":
            pass
        case unknown:
            raise ValueError(f"no such command: {unknown}")
    return {}


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m tests.kubelet")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--dials", choices=("during", "after"), default="during")
    parser.add_argument("--dial-timeout", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--hold", action="store_true", help="answer no Register before `release`")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--pod-resources", type=Path, metavar="FOLDER", help="tell there which pod holds what"
    )
    flags = parser.parse_args()
    kubelet = Kubelet(
        flags.folder,
        dials=flags.dials,
        dial_timeout=flags.dial_timeout,
        hold=flags.hold,
        seed=flags.seed,
        tell=tell,
    )
    if flags.pod_resources is not None:
        manager = kubelet.manager
        PodResources(
            flags.pod_resources,
            manager.holders,
            manager.allocatable,
            on_asked=lambda: tell("pod_resources_asked"),
        ).start()
    kubelet.start()
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            command = json.loads(line)
            if command.get("do") in CALLS_THE_PLUGIN:
                threading.Thread(target=obey, args=(kubelet, command), daemon=True).start()
            else:
                obey(kubelet, command)
    kubelet.stop()


if __name__ == "__main__":
    main()
