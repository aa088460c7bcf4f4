"""One table of conversations with an API server, for the real one and the stand-in.

What the real one answered is kept in `api_conversations.json`; `nox -s cluster -- --write-conversations`
writes it again. Only what our client reads is kept: status, reason, the fields a refusal names, and
objects without what the server adds to them of its own accord. Versions and uids are numbered in the order
in which they are first seen, so that a repeated number means an unchanged object.
"""

import http.client
import json
import re
import ssl
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import attrs

Object = dict[str, Any]
RECORDED: Final = Path(__file__).with_name("api_conversations.json")
NODE: Final = "recorded"
NODES: Final = "/api/v1/nodes"
PODS: Final = "/api/v1/namespaces/default/pods"
CLAIMS: Final = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims"
SLICES: Final = "/apis/resource.k8s.io/v1/resourceslices"
REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
DRIVER: Final = "gpu.conversations.test"
OURS: Final = f"spec.driver={DRIVER},spec.nodeName={NODE}"
STRICT: Final = {"fieldValidation": "Strict"}
_TIMEOUT: Final = 20.0
_SHOWN: Final = ("name", "namespace", "generateName", "uid", "resourceVersion")
"""Of an object's metadata."""
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@attrs.frozen
class Ask:
    """A request. `$NAME.version`, `$NAME.uid`, `$NAME.name` in it are those of an answer kept before."""

    method: str
    path: str
    body: object = None
    query: dict[str, str] = attrs.Factory(dict)
    keep: str = ""
    """The name under which the answer's object is known to later requests."""
    account: str = "ours"
    """Or `stranger`, who has no right; or `unknown`, whose token nobody issued."""


@attrs.frozen
class Watch:
    """A watch, which the client ends after so many events, or the server."""

    path: str
    since: str
    query: dict[str, str] = attrs.Factory(dict)
    events: int = 99
    meanwhile: Ask | None = None
    """What somebody asks once the watch has begun."""


Step = Ask | Watch


class Played(Protocol):
    """An API server that a conversation can be played to."""

    address: tuple[str, int]
    tls: ssl.SSLContext

    def token(self, account: str) -> str:
        """The bearer token of an account of `Ask`."""
        ...


def slice_of(*devices: Object, name: str = "", **spec: Any) -> Object:
    """A slice of the node, with changes to its spec."""
    metadata = {"name": name} if name else {"generateName": "00000-recorded-"}
    whole = {
        "driver": DRIVER, "nodeName": NODE, "devices": list(devices),
        "pool": {"name": NODE, "generation": 1, "resourceSliceCount": 1},
    } | spec  # fmt: skip
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": metadata,
        "spec": {key: value for key, value in whole.items() if value is not None},
    }


def device(name: str = "gpu-0", **more: Any) -> Object:
    """A device as ours are."""
    return {"name": name, "attributes": {"type": {"string": "gpu"}}} | more


def stored(name: str, *devices: Object, **metadata: str) -> Object:
    """The slice that was kept as `name`, with other devices."""
    found = slice_of(*devices, name=f"${name}.name")
    found["metadata"] |= {"generateName": "00000-recorded-"} | metadata
    return found


def annotated(values: dict[str, str | None], **metadata: str) -> Object:
    """A merge patch of annotations."""
    return {"metadata": {"annotations": values, **metadata}}


def preconditions(**metadata: str) -> Object:
    """The options of a deletion."""
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": metadata}


def review(verb: str, resource: str) -> Object:
    """The question whether the account has a right."""
    asked = {"verb": verb, "resource": resource, "group": "resource.k8s.io"}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }


TAINT: Final = {"key": f"{DRIVER}/fault", "value": "yes", "effect": "NoSchedule"}
LISTED: Final = {"fieldSelector": OURS}
RECORDED_SLICE: Final = slice_of(device(), name="recorded")
RECORDED_SLICE["metadata"]["generateName"] = "00000-recorded-"
INVALID: Final[dict[str, Object]] = {
    "two places": slice_of(allNodes=True),
    "no place": slice_of(nodeName=None),
    "no slice in the pool": slice_of(pool={"name": NODE, "generation": 1, "resourceSliceCount": 0}),
    "a negative generation": slice_of(
        pool={"name": NODE, "generation": -1, "resourceSliceCount": 1}
    ),
    "a driver that is no domain": slice_of(driver="gpu_birentech"),
    "a device twice": slice_of(device(), device()),
    "a device with a dot": slice_of(device("gpu.0")),
    "129 devices": slice_of(*(device(f"gpu-{number}") for number in range(129))),
    "65 devices, one tainted": slice_of(
        device("gpu-64", taints=[TAINT]), *(device(f"gpu-{number}") for number in range(64))
    ),
    "an attribute with two values": slice_of(
        device(attributes={"type": {"string": "gpu", "int": 1}})
    ),
    "an attribute without a value": slice_of(device(attributes={"type": {}})),
    "a string of 65 bytes": slice_of(device(attributes={"type": {"string": "x" * 65}})),
    "a version of two numbers": slice_of(device(attributes={"driver": {"version": "1.12"}})),
    "an attribute's name with a dash": slice_of(device(attributes={"a-b": {"int": 1}})),
    "33 attributes": slice_of(
        device(attributes={f"a{number}": {"int": number} for number in range(33)})
    ),
    "a taint with a blank": slice_of(device(taints=[TAINT | {"value": "not well"}])),
    "a taint without an effect": slice_of(device(taints=[{"key": "fault"}])),
    "17 taints": slice_of(
        device(taints=[TAINT | {"key": f"fault-{number}"} for number in range(17)])
    ),
    "a name with a capital": slice_of(name="Recorded"),
}
"""Slices that no server stores."""
TOO_OLD: Final = "a watch from a version that is too old"
CONVERSATIONS: Final[dict[str, tuple[Step, ...]]] = {
    "a slice comes, changes and goes": (
        Ask("GET", SLICES, query=LISTED),
        Ask("POST", SLICES, slice_of(device()), STRICT, keep="slice"),
        Ask("GET", SLICES, query=LISTED),
        Ask("PUT", f"{SLICES}/$slice.name", stored("slice", device()), STRICT),
        Ask("PUT", f"{SLICES}/$slice.name", stored("slice", device("gpu-1")), STRICT),
        Ask("GET", SLICES, query=LISTED),
        Ask("DELETE", f"{SLICES}/$slice.name"),
        Ask("GET", SLICES, query=LISTED),
        Ask("DELETE", f"{SLICES}/$slice.name"),
        Ask("PUT", f"{SLICES}/$slice.name", stored("slice"), STRICT),
    ),
    "somebody else was faster": (
        Ask("POST", SLICES, RECORDED_SLICE, STRICT, keep="slice"),
        Ask("POST", SLICES, slice_of(device(), name="recorded"), STRICT),
        Ask("PUT", f"{SLICES}/recorded", stored("slice", device("b")), STRICT, keep="later"),
        Ask(
            "PUT", f"{SLICES}/recorded",
            stored("slice", device("c"), resourceVersion="$slice.version"), STRICT,
        ),
        Ask("PUT", f"{SLICES}/recorded", stored("slice", device("c"), uid="another"), STRICT),
        Ask(
            "PUT", f"{SLICES}/recorded",
            stored("slice", device("c"), resourceVersion="$later.version"), STRICT,
        ),
        Ask("DELETE", f"{SLICES}/recorded", preconditions(uid="another")),
        Ask("DELETE", f"{SLICES}/recorded", preconditions(resourceVersion="$slice.version")),
        Ask("DELETE", f"{SLICES}/recorded", preconditions(uid="$slice.uid")),
    ),
    "a field is dropped": (
        # Its gate is off by default.
        Ask(
            "POST", SLICES,
            slice_of(device(nodeAllocatableResourceMappings={"cpu": {"allocationMultiplier": "1"}}), name="recorded"), STRICT,
        ),
        Ask("POST", SLICES, slice_of(device(invented=True), name="recorded"), STRICT),
        Ask("POST", SLICES, slice_of(device(invented=True), name="other")),
        Ask("PUT", f"{SLICES}/recorded", slice_of(device(taints=[TAINT]), name="recorded"), STRICT),
    ),
    "the fields that say where a slice belongs stay": (
        Ask("POST", SLICES, slice_of(name="recorded"), STRICT),
        Ask("PUT", f"{SLICES}/recorded", slice_of(name="recorded", driver="other.test"), STRICT),
        Ask("PUT", f"{SLICES}/recorded", slice_of(name="recorded", nodeName="other"), STRICT),
        Ask(
            "PUT", f"{SLICES}/recorded",
            slice_of(
                name="recorded", pool={"name": "other", "generation": 1, "resourceSliceCount": 1}
            ), STRICT,
        ),
        Ask("PUT", f"{SLICES}/recorded", slice_of(name="another"), STRICT),
    ),
    "a slice is refused": tuple(Ask("POST", SLICES, each, STRICT) for each in INVALID.values()),
    "a watch tells what changes": (
        Ask("GET", SLICES, query=LISTED, keep="list"),
        Ask("POST", SLICES, RECORDED_SLICE, STRICT, keep="slice"),
        Ask("POST", SLICES, slice_of(device(), name="other", driver="other.test"), STRICT),
        Ask("PUT", f"{SLICES}/recorded", stored("slice", device()), STRICT),
        Ask("PUT", f"{SLICES}/recorded", stored("slice", device("b")), STRICT),
        Ask("DELETE", f"{SLICES}/recorded"),
        Watch(SLICES, "$list.version", LISTED, events=3),
        Watch(SLICES, "$slice.version", LISTED, events=2),
        Watch(SLICES, "$list.version", {"timeoutSeconds": "1"}),
    ),
    "a watch without news gets a bookmark if it asks for one, and others have news": (
        Ask("GET", SLICES, query=LISTED, keep="list"),
        Watch(
            SLICES, "$list.version",
            LISTED | {"allowWatchBookmarks": "true", "timeoutSeconds": "6"}, events=1,
            meanwhile=Ask("POST", SLICES, slice_of(name="other", driver="other.test"), STRICT),
        ),
        Watch(SLICES, "$list.version", LISTED | {"timeoutSeconds": "1"}),
    ),
    TOO_OLD: (Watch(SLICES, "1", LISTED | {"timeoutSeconds": "5"}),),
    "a node is annotated": (
        Ask("GET", f"{NODES}/{NODE}", keep="node"),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"test/a": "1", "test/b": "2"}), keep="later"),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"test/a": "1"})),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"test/a": None})),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"test/a": None})),
        Ask(
            "PATCH", f"{NODES}/{NODE}",
            annotated({"test/b": None}, resourceVersion="$later.version"),
        ),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"test/b": None}, uid="another")),
        Ask("GET", f"{NODES}/{NODE}", keep="now"),
        Ask(
            "PATCH", f"{NODES}/{NODE}",
            annotated({"test/b": None}, resourceVersion="$now.version", uid="$node.uid"),
        ),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"not a key": "1"})),
        Ask("PATCH", f"{NODES}/{NODE}", {"metadata": {"annotations": {"test/a": 1}}}),
        Ask("PATCH", f"{NODES}/nobody", annotated({"test/a": "1"})),
    ),
    "a watch of one node": (
        Ask("GET", NODES, query={"fieldSelector": f"metadata.name={NODE}"}, keep="list"),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"test/a": "1"})),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"test/a": "1"})),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"test/a": None})),
        Watch(NODES, "$list.version", {"fieldSelector": f"metadata.name={NODE}"}, events=2),
        Ask("GET", NODES, query={"fieldSelector": "metadata.name=nobody"}),
    ),
    "a pod is annotated": (
        Ask("GET", f"{PODS}/recorded", keep="pod"),
        Ask("PATCH", f"{PODS}/recorded", annotated({"test/a": "1"}, uid="$pod.uid")),
        Ask("PATCH", f"{PODS}/recorded", annotated({"test/a": "1"}, uid="$pod.uid")),
        Ask("PATCH", f"{PODS}/recorded", annotated({"test/a": "2"}, uid="another")),
        Ask("PATCH", f"{PODS}/recorded", annotated({"test/a": None})),
        Ask("GET", f"{PODS}/nobody"),
        Ask("PATCH", f"{PODS}/nobody", annotated({"test/a": "1"}, uid="$pod.uid")),
    ),
    "the pods of a node that wait": (
        Ask("GET", "/api/v1/pods", query={"fieldSelector": f"spec.nodeName={NODE},status.phase=Pending"}),
        Ask("GET", "/api/v1/pods", query={"fieldSelector": f"spec.nodeName={NODE},status.phase=Running"}),
        Ask("GET", "/api/v1/pods", query={"fieldSelector": "spec.nodeName=nobody"}),
        Ask("GET", "/api/v1/pods", query={"fieldSelector": "spec.nothing=1"}),
        Ask("GET", SLICES, query={"fieldSelector": "spec.pool.name=recorded"}),
    ),
    "a claim is read": (
        Ask("GET", f"{CLAIMS}/recorded"),
        Ask("GET", f"{CLAIMS}/nothing"),
    ),
    "what the server has": (
        Ask("GET", "/apis/resource.k8s.io/v1"),
        Ask("GET", "/apis/resource.k8s.io/v9"),
        Ask("GET", "/apis/resource.k8s.io/v1/nothings"),
        Ask("POST", SLICES, slice_of() | {"kind": "ResourceClaim"}, STRICT),
    ),
    "rights": (
        Ask("POST", REVIEWS, review("create", "resourceslices")),
        Ask("GET", SLICES, query=LISTED, account="unknown"),
        Ask("GET", SLICES, query=LISTED, account="stranger"),
        Ask("POST", SLICES, slice_of(), STRICT, account="stranger"),
        Ask("PATCH", f"{NODES}/{NODE}", annotated({"test/a": "1"}), account="stranger"),
        Ask("POST", REVIEWS, review("create", "resourceslices"), account="stranger"),
    ),
}  # fmt: skip


def play(server: Played, steps: tuple[Step, ...]) -> list[Object]:
    """What the server answers to each step."""
    kept: dict[str, Object] = {}
    seen: dict[str, str] = {}
    answers: list[Object] = []
    for step in steps:
        filled = attrs.evolve(
            step, **{each: _filled(value, kept) for each, value in _values(step).items()}
        )
        if isinstance(filled, Watch):
            answers.append({"asked": f"WATCH {step.path}", "events": _events(server, filled, seen)})
            continue
        status, answer = _exchange(server, filled)
        if filled.keep:
            kept[filled.keep] = answer
        asked = f"{filled.method} {step.path}"
        answers.append({"asked": asked, "answered": status, **_shown(answer, seen)})
    return answers


def recorded() -> dict[str, list[Object]]:
    """What the real API server answered, by conversation."""
    answers: dict[str, list[Object]] = json.loads(RECORDED.read_text())
    return answers


def _values(step: Step) -> dict[str, Any]:
    return attrs.asdict(step, recurse=False)


def _filled(value: Any, kept: dict[str, Object]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, kept) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, kept) for each in value]
    if not isinstance(value, str):
        return value

    def known(match: re.Match[str]) -> str:
        key = {"version": "resourceVersion"}.get(match[2], match[2])
        return str(kept[match[1]]["metadata"][key])

    return re.sub(r"\$(\w+)\.(version|uid|name)", known, value)


def _connect(server: Played) -> http.client.HTTPSConnection:
    host, port = server.address
    return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=server.tls)


def _target(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _exchange(server: Played, asked: Ask) -> tuple[int, Object]:
    connection = _connect(server)
    patch = "merge-patch+" if asked.method == "PATCH" else ""
    headers = {
        "Authorization": f"Bearer {server.token(asked.account)}",
        "Content-Type": f"application/{patch}json",
        "Accept": "application/json",
    }
    body = None if asked.body is None else json.dumps(asked.body)
    try:
        connection.request(asked.method, _target(asked.path, asked.query), body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(content)
    except ValueError:
        return answer.status, {"kind": "not JSON"}


def _events(server: Played, asked: Watch, seen: dict[str, str]) -> list[Object]:
    connection = _connect(server)
    query = asked.query | {"watch": "1", "resourceVersion": asked.since}
    headers = {"Authorization": f"Bearer {server.token('ours')}", "Accept": "application/json"}
    events: list[Object] = []
    try:
        connection.request("GET", _target(asked.path, query), headers=headers)
        answer = connection.getresponse()
        if asked.meanwhile is not None:
            _exchange(server, asked.meanwhile)
        while len(events) < asked.events and (line := answer.readline()):
            event = json.loads(line)
            is_bookmark = event["type"] == "BOOKMARK"
            found = {} if is_bookmark else _shown(event["object"], seen)
            events.append({"type": event["type"], **found})
    finally:
        connection.close()
    return events


def _shown(answer: Object, seen: dict[str, str]) -> Object:
    """What our client reads of an answer."""
    if answer.get("kind") == "Status":
        causes = answer.get("details", {}).get("causes", ())
        fields = {"fields": sorted({each["field"] for each in causes})} if causes else {}
        code = {"code": answer["code"]} if "code" in answer else {}
        return {"kind": "Status", **code, "reason": answer.get("reason", ""), **fields}
    if answer.get("kind", "").endswith("List") and "items" in answer:
        items = [_object_shown(each, seen) for each in answer["items"] or ()]
        return {"kind": answer["kind"], "items": items}
    return _object_shown(answer, seen)


def _object_shown(found: Object, seen: dict[str, str]) -> Object:
    metadata = found.get("metadata", {})
    shown: Object = {"metadata": {key: metadata[key] for key in _SHOWN if key in metadata}}
    made = metadata.get("generateName")
    if made and metadata["name"].startswith(made):
        length = len(metadata["name"])
        seen.setdefault(f"name {metadata['name']}", f"{made}... of {length} characters")
    if f"name {metadata.get('name')}" in seen:
        shown["metadata"]["name"] = seen[f"name {metadata['name']}"]
    for key, word in (("uid", "uid"), ("resourceVersion", "version")):
        if key in metadata:
            number = sum(each.startswith(word) for each in seen.values()) + 1
            shown["metadata"][key] = seen.setdefault(f"{word} {metadata[key]}", f"{word} {number}")
    values = metadata.get("annotations") or {}
    if ours := {key: value for key, value in values.items() if key.startswith("test/")}:
        shown["metadata"]["annotations"] = ours
    shown |= {key: found[key] for key in ("kind", "apiVersion") if key in found}
    spec, status = found.get("spec") or {}, found.get("status") or {}
    if "driver" in spec:
        shown["spec"] = json.loads(_TIME.sub("TIME", json.dumps(spec)))
    elif "nodeName" in spec:
        shown["spec"] = {"nodeName": spec["nodeName"]}
    if wanted := {key: status[key] for key in ("phase", "allowed") if key in status}:
        shown["status"] = wanted
    return shown
