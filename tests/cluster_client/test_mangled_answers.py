"""An answer in which one place is missing, null or of another type is the server's fault, in one line each."""

import base64
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from biren_plugin.board import Board
from biren_plugin.cluster import object_watch
from biren_plugin.cluster.api_server import LONGEST_TEXT, ApiServer, error_of, from_json
from biren_plugin.cluster.credentials import who_am_i
from biren_plugin.core.dra.claims import ClaimId
from biren_plugin.core.dra.pool import Pool, pool_of
from biren_plugin.core.dra.slice_writes import Owner
from biren_plugin.core.hami.annotations import LOCK, NODE, NODE_SHAPE, TO_ALLOCATE
from biren_plugin.core.hami.promises import Progress, waiting
from biren_plugin.core.model import DeviceList, HostFacts, Inventory
from biren_plugin.daemon_state import Counters
from biren_plugin.dra import claim_service
from biren_plugin.dra.claim_service import ClaimService, Offer
from biren_plugin.dra.slice_publisher import PATH, SlicePublisher
from biren_plugin.errors import ApiError, ApiForbidden, ApiInvalid, ApiUnreachable
from biren_plugin.files.claim_files import ClaimFiles
from biren_plugin.hami.node_objects import NodeObjects
from tests.core.dra.test_pool import whole
from tests.support.cards import GPU
from tests.support.mangling import mangled

Answer = Callable[[str, str], Any]
METADATA = {"name": "n", "uid": "u", "resourceVersion": "7", "namespace": "team"}
SLICE = {
    "metadata": {**METADATA, "name": "00000-gpu.birentech.com-node-7-abcde"},
    "spec": {
        "driver": "gpu.birentech.com",
        "nodeName": "node-7",
        "pool": {"name": "node-7", "generation": 1, "resourceSliceCount": 1},
        "devices": [
            {
                "name": "one",
                "attributes": {"type": {"string": "gpu"}},
                "taints": [{"key": "k", "effect": "NoSchedule", "timeAdded": "2026"}],
            }
        ],
    },
}
RESULT = {
    "request": "r", "driver": "gpu.birentech.com", "pool": "node-7", "device": "gpu-0000-01-00-0",
    "adminAccess": True, "tolerations": [{"key": "k", "operator": "Equal", "value": "v"}],
}  # fmt: skip
OPAQUE = {"opaque": {"driver": "another.example.com", "parameters": {}}}
CLAIM = {
    "metadata": {"uid": "uid-a"},
    "status": {"allocation": {"devices": {"results": [RESULT], "config": [OPAQUE]}}},
}
POD = {
    "metadata": {
        **METADATA,
        "annotations": {NODE: "n", TO_ALLOCATE: "card_0,Biren,0,0:;"},
        "ownerReferences": [{"kind": "DaemonSet", "name": "d"}],
    },
    "spec": {"nodeName": "n"},
    "status": {"phase": "Pending", "startTime": "2026"},
}
NODE_OBJECT = {"metadata": {**METADATA, "labels": {"a": "b"}, "annotations": {LOCK: "2026,team,p"}}}
DAEMONSET = {
    "metadata": METADATA,
    "spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}},
}


class Api:
    """Answers each call with what `answer` gives, as it would come over the wire."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def call(self, method: str, path: str, *_: Any, **__: Any) -> Any:
        found = from_json(json.dumps(self.answer(method, path)).encode())
        if not isinstance(found, dict):
            raise ApiUnreachable("not an object")  # `ApiServer.call` lets none of these through
        return found


async def only_faults_of_the_server(
    documents: Iterable[Any], call: Callable[[ApiServer], Awaitable[object]], answer: Any = None
) -> None:
    """Makes the call with each of the documents as answer, or with what `answer` makes of it."""
    answer = answer or (lambda document: lambda _method, _path: document)
    count = 0
    for document in documents:
        count += 1
        try:
            await call(cast("ApiServer", Api(answer(document))))
        except ApiError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - not each document is a fault
        except Exception as error:
            raise AssertionError(f"{error!r} from {document}") from error
    assert count > 50


async def test_a_mangled_claim_is_answered_with_a_sentence_or_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_service, "PATIENCE", 0.0)
    pool = pool_of(Inventory((DeviceList(GPU, (whole(0),)),)), None)
    offers = Board[Offer]()
    offers.post(Offer(pool, HostFacts(), holders={}))
    answered = []

    async def prepare(api: ApiServer) -> None:
        service = ClaimService(
            api, "node-7", offers, ClaimFiles(tmp_path), tmp_path / "lock", Counters()
        )
        answers = await service.prepare(
            [ClaimId("team", "a", "uid-a"), ClaimId("", "/?\u00e9", "u/")]
        )
        assert len(answers) == 2
        answered.append(answers["uid-a"])

    await only_faults_of_the_server(mangled(CLAIM), prepare)
    assert any("the API server's answer is not a claim: " in each for each in answered)
    assert any(isinstance(each, list) and each for each in answered)


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_mangled_slice_is_a_fault_of_the_server(method: str) -> None:
    """In the list, and as the answer to a write."""

    async def publish(api: ApiServer) -> None:
        publisher = SlicePublisher(api, Owner("node-7", "u"))
        await publisher._publish(Pool(slices=(({"name": "two"},),)))

    def answer(document: Any) -> Answer:
        def answers(asked: str, path: str) -> Any:
            found = document if method == asked else SLICE
            return {"items": [found]} if (asked, path) == ("GET", PATH) else found

        return answers

    await only_faults_of_the_server(mangled(SLICE), publish, answer)


@pytest.mark.parametrize("kind", ["MODIFIED", "BOOKMARK", "DELETED", "ERROR"])
async def test_a_mangled_event_is_a_fault_of_the_server(kind: str) -> None:
    event = {"type": kind, "object": {**NODE_OBJECT, "code": 410, "message": "old"}}
    for document in mangled(event):
        try:
            line = json.dumps(document).encode()
            version = object_watch._take(line, "/x", {}, Board(), NODE_SHAPE)
            assert isinstance(version, str)
        except ApiError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - not each document is a fault


@pytest.mark.parametrize(
    ("document", "plural"), [(NODE_OBJECT, "nodes"), (POD, "pods"), (DAEMONSET, "daemonsets")]
)
async def test_mangled_objects_of_hami_are_faults_of_the_server(
    monkeypatch: pytest.MonkeyPatch, document: Any, plural: str
) -> None:
    whole_ones = {"nodes": NODE_OBJECT, "pods": POD, "daemonsets": DAEMONSET}

    class Me:
        namespace, pod = "team", "p"

    monkeypatch.setattr("biren_plugin.hami.node_objects.who_am_i", lambda _token: Me)

    def answer(wrong: Any) -> Answer:
        def answers(_method: str, path: str) -> Any:
            if path == "/api/v1/pods":
                return {"items": [wrong if plural == "pods" else POD]}
            kind = path.split("/")[-2]
            return wrong if kind == plural else whole_ones[kind]

        return answers

    async def use(api: ApiServer) -> None:
        async def access() -> Any:
            return type("Access", (), {"token": "t"})

        api.access = access  # type: ignore[method-assign]
        objects = NodeObjects(api, "n")
        await objects.node()
        waiting(await objects.pending_pods(), "n", Progress())
        await objects.release(lambda _lock: True)
        await objects.annotate({"a": "b"})
        await objects.is_left_for_good()

    await only_faults_of_the_server(mangled(document), use, answer)


def test_a_mangled_token_names_nobody() -> None:
    named = {"name": "n", "uid": "u"}
    claims = {
        "kubernetes.io": {"namespace": "a", "node": named, "pod": named, "serviceaccount": named}
    }
    for document in mangled(claims):
        payload = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
        try:
            found = who_am_i(f"a.{payload}.c")
            assert isinstance(found.node, str)
            assert isinstance(found.pod_uid, str)
        except ApiUnreachable as error:
            assert "does not name its pod and node" in str(error)  # noqa: PT017


def test_the_text_of_the_api_server_is_one_line_of_bounded_length() -> None:
    for status in (
        {"message": "a\nb\r" + "x" * 100_000},
        {"message": ["a"]},
        {"message": "\ud800"},
    ):
        text = str(error_of(422, "PUT /x", status))
        assert len(text.splitlines()) == 1
        assert len(text) < LONGEST_TEXT + 20
        text.encode()
    denied = {"message": f"{'x' * LONGEST_TEXT} denied request: own node only"}
    assert isinstance(error_of(422, "PUT /x", denied), ApiForbidden)
    assert isinstance(error_of(400, "PUT /x", {"message": "a" * 500}), ApiInvalid)
    assert "x" * 10 + "..." in str(error_of(422, "PUT /x", {"message": "x" * 100_000}))
