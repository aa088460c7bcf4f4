"""Calls of the API server end: with an object, or with an error that says whose fault it is."""

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from biren_plugin.cluster.api_server import ApiServer
from biren_plugin.cluster.credentials import Access, PodCredentials, load_kubeconfig, who_am_i
from biren_plugin.errors import (
    ApiConflict,
    ApiError,
    ApiForbidden,
    ApiInvalid,
    ApiNotFound,
    ApiUnreachable,
)
from tests.support.api_server import StandInApiServer, stand_in_api_server
from tests.support.clocks import Gate

CLAIMS = "/apis/resource.k8s.io/v1/namespaces/team/resourceclaims"


@pytest.fixture
def server() -> Iterator[StandInApiServer]:
    with stand_in_api_server() as running:
        running.put(f"{CLAIMS}/cards", {"metadata": {"name": "cards"}})
        running.requests.clear()
        yield running


@pytest.fixture
async def api(server: StandInApiServer, tmp_path: Path) -> AsyncIterator[ApiServer]:
    account = tmp_path / "account"
    client = ApiServer(PodCredentials(server.account(account), account).load)
    yield client
    await client.close()


async def test_an_object_comes_back_as_the_server_has_it(api: ApiServer) -> None:
    found = await api.call("GET", f"{CLAIMS}/cards")
    assert found["metadata"]["name"] == "cards"


async def test_calls_share_one_connection(api: ApiServer, server: StandInApiServer) -> None:
    for _ in range(5):
        await api.call("GET", f"{CLAIMS}/cards")
    assert api._kept is not None
    kept = api._kept
    await api.call("GET", f"{CLAIMS}/cards")
    assert api._kept is kept


async def test_a_token_that_was_renewed_is_read_after_a_refusal(
    api: ApiServer, server: StandInApiServer, tmp_path: Path
) -> None:
    await api.call("GET", f"{CLAIMS}/cards")
    server.token = "secret-2"
    (tmp_path / "account/token").write_text("secret-2\n")
    await api.call("GET", f"{CLAIMS}/cards")


async def test_a_token_that_stays_wrong_is_a_missing_right(
    api: ApiServer, server: StandInApiServer
) -> None:
    server.token = "another"
    with pytest.raises(ApiForbidden, match="Unauthorized"):
        await api.call("GET", f"{CLAIMS}/cards")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (403, "resourceslices is forbidden", ApiForbidden),
        (422, "ValidatingAdmissionPolicy 'x' denied request: own node only", ApiForbidden),
        (422, "spec.devices: Too many", ApiInvalid),
        (400, "strict decoding error", ApiInvalid),
        (404, "not found", ApiNotFound),
        (409, "the object has been modified", ApiConflict),
        (429, "too many requests", ApiUnreachable),
        (500, "etcd is away", ApiUnreachable),
        (503, "starting", ApiUnreachable),
    ],
)
async def test_each_refusal_says_whose_fault_it_is(
    api: ApiServer, server: StandInApiServer, status: int, message: str, kind: type[ApiError]
) -> None:
    server.refuse = lambda _method, _path: (status, message)
    with pytest.raises(kind, match=message[:20].replace("(", r"\(")):
        await api.call("GET", f"{CLAIMS}/cards")


async def test_a_server_that_does_not_answer_costs_the_deadline_and_the_next_call_works(
    api: ApiServer, server: StandInApiServer
) -> None:
    server.hang = threading.Event()
    with pytest.raises(ApiUnreachable, match="no answer"):
        await api.call("GET", f"{CLAIMS}/cards", deadline=0.2)
    server.hang.set()
    assert await api.call("GET", f"{CLAIMS}/cards")


async def test_a_server_that_restarted_is_reached_over_a_new_connection(
    api: ApiServer, server: StandInApiServer, tmp_path: Path
) -> None:
    await api.call("GET", f"{CLAIMS}/cards")
    assert api._kept is not None
    await trio.aclose_forcefully(api._kept._stream.transport_stream)  # type: ignore[attr-defined]
    assert await api.call("GET", f"{CLAIMS}/cards")


async def test_an_address_where_nobody_listens_is_named_with_the_reason(tmp_path: Path) -> None:
    with stand_in_api_server() as gone:
        environment = gone.account(tmp_path)
    client = ApiServer(PodCredentials(environment, tmp_path).load)
    refused = r"cannot connect to the API server at 127\.0\.0\.1:[0-9]+: Connection refused"
    with pytest.raises(ApiUnreachable, match=refused):
        await client.call("GET", CLAIMS)


async def test_a_server_of_another_authority_is_not_trusted(
    server: StandInApiServer, tmp_path: Path
) -> None:
    with stand_in_api_server() as other:
        other.account(tmp_path)
    environment = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(server.port),
    }
    client = ApiServer(PodCredentials(environment, tmp_path).load)
    with pytest.raises(ApiUnreachable, match="no TLS with the API server"):
        await client.call("GET", CLAIMS)


async def test_outside_a_pod_the_error_names_what_to_give() -> None:
    client = ApiServer(PodCredentials({}).load)
    with pytest.raises(ApiUnreachable, match="give --kubeconfig"):
        await client.call("GET", CLAIMS)


async def test_a_kubeconfig_reaches_the_server(server: StandInApiServer, tmp_path: Path) -> None:
    file = server.kubeconfig(tmp_path)
    client = ApiServer(lambda: load_kubeconfig(file))
    assert await client.call("GET", f"{CLAIMS}/cards")
    await client.close()


@pytest.mark.parametrize("text", ["", "[", "current-context: x", "a: [1", "- 1"])
def test_a_kubeconfig_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(ApiUnreachable, match=str(file)):
        load_kubeconfig(file)


@pytest.mark.parametrize("token", ["", "a.b.c", "a.e30.c", "x" * 40])
def test_a_token_that_names_no_node_is_refused(token: str) -> None:
    with pytest.raises(ApiUnreachable, match="does not name its pod and node"):
        who_am_i(token)


async def test_cancelled_calls_leave_no_socket_behind(
    api: ApiServer, server: StandInApiServer
) -> None:
    server.hang = threading.Event()
    for _ in range(20):
        with trio.move_on_after(0.01):
            await api.call("GET", f"{CLAIMS}/cards")
    server.hang.set()
    assert api._kept is None  # and a ResourceWarning would be an error


async def test_credentials_on_a_disk_that_hangs_are_blamed_on_the_disk(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()

    def hang() -> Access:
        gate.wait()
        raise AssertionError("nobody waits for it any more")

    client = ApiServer(hang)
    for _ in range(2):
        with pytest.raises(ApiUnreachable, match="reading the credentials"):
            await client.call("GET", CLAIMS)
    gate.set()
