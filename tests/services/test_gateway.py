"""The hub's HTTP side, one request at a time: who may ask what, and how it says no."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from koinon.domain import canonical, httpsig, wire
from koinon.domain.grant import Grant, Revocation
from koinon.domain.keys import Certificate, SigningKey
from koinon.domain.manifest import Manifest
from koinon.gateway import examples
from tests.services import hubs
from tests.services.consortium import NAMES, Federation
from tests.services.hospitals import Hospital


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with hubs.running(tmp_path_factory.mktemp("gateway") / "hub") as hub, Federation(hub) as made:
        yield made


def stranger(federation: Federation, name: str) -> Hospital:
    """A hospital with its own connection, to be closed by the test's end."""
    return Hospital(name, federation.hub.url)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "where", "todo", "code"} == set(found)
    assert found["status"] == status
    return found


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/nothing", 404, "nothing at this address"),
        ("DELETE", "/v1/projects", 405, "Method Not Allowed"),
        ("GET", "/v1/runs?limit=0", 422, "greater than or equal to 1"),
        ("GET", "/v1/runs/abcdef", 404, "no run"),
        ("GET", "/v1/projects/nothing", 404, "nothing"),
        ("GET", "/v1/sites/nowhere", 404, "nowhere"),
        ("PUT", f"/v1/packages/{'0' * 64}", 400, "another hash"),
    ],
)
def test_errors_are_problem_documents(federation: Federation, method: str, path: str, status: int, words: str) -> None:
    assert words in problem(federation.client.request(method, path), status)["detail"]


def test_bodies_are_refused_with_field_and_reason(federation: Federation) -> None:
    post = federation.client.post
    assert "not JSON" in problem(post("/v1/projects", content=b"{"), 422)["detail"]
    assert "twice" in problem(post("/v1/projects", content=b'{"name": 1, "name": 2}'), 422)["detail"]
    assert problem(post("/v1/projects", content=b'{"name": "Not A Name"}'), 422)["where"].startswith("manifest.")
    body = {"project": "heart", "parameters": {"learning_rat": 1}}
    found = problem(post("/v1/runs", json=body), 422)
    assert (found["where"], found["todo"]) == ("parameters.learning_rat", 'Did you mean "learning_rate"?')
    found = problem(post("/v1/runs", json={"project": "heart", "parameters": {"rounds": 5000}}), 422)
    assert "5000 is outside 1 to 1000" in found["detail"]


def test_researchers_need_their_token(federation: Federation) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic abc"}):
        answer = httpx.get(f"{federation.hub.url}/v1/projects", headers=headers, trust_env=False)
        assert "koinon login" in problem(answer, 401)["todo"]
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_site_must_sign_exactly_what_it_sends(federation: Federation) -> None:
    site = federation.sites["lyon"]
    body = site.status()
    assert site.call("POST", "/v1/sites/me/tasks", body, after=0, wait=0).status_code == 200

    request = site.http.build_request("POST", "/v1/sites/me/tasks?wait=0", content=body)
    request.headers["Koinon-Protocol"] = "1"
    assert "Signature-Input" in problem(site.http.send(request), 401)["detail"]

    def altered(change: Any) -> httpx.Response:
        signed = site.http.build_request("POST", "/v1/sites/me/tasks?wait=0", content=body)
        signed.headers["Koinon-Protocol"] = "1"
        signed.headers.update(
            httpsig.sign("POST", str(signed.url), site.name, site.signer, created=time.time(), body=body)
        )
        return site.http.send(change(signed))

    elsewhere = f"{site.url}/v1/sites/me/tasks?wait=1"
    other_query = altered(lambda r: httpx.Request("POST", elsewhere, headers=r.headers, content=body))
    assert "not by the key" in problem(other_query, 401)["detail"]
    other = body.replace(b"idle", b"busy")
    other_body = altered(lambda r: httpx.Request("POST", str(r.url), headers=r.headers, content=other))
    assert "not the one that was signed" in problem(other_body, 400)["detail"]


def test_wrong_keys_clocks_and_protocols_are_told_apart(federation: Federation) -> None:
    unknown = stranger(federation, "marseille")
    assert "marseille" in problem(unknown.call("POST", "/v1/sites/me/tasks", unknown.status()), 401)["detail"]
    thief = stranger(federation, "lyon")
    thief.signer = SigningKey(b"x" * 32)
    assert "not by the key" in problem(thief.call("POST", "/v1/sites/me/tasks", thief.status()), 401)["detail"]
    late = stranger(federation, "lyon")
    late.clock = lambda: time.time() - 1000
    found = problem(late.call("POST", "/v1/sites/me/tasks", late.status()), 401)
    assert re.search("100[01] s behind", found["detail"])
    assert "NTP" in found["todo"]
    old = late.http.build_request("GET", "/v1/sites/me/uploads/abcdef/1/1")
    old.headers["Koinon-Protocol"] = "7"
    assert "serves protocol 1, not 7" in problem(late.http.send(old), 426)["detail"]
    status = wire.SiteStatus(protocol=9, version="9").encode()
    late.clock = time.time
    assert "protocol 1, not 9" in problem(late.call("POST", "/v1/sites/me/tasks", status), 426)["detail"]
    for site in (unknown, thief, late):
        site.http.close()


def test_enrolment_takes_a_token_once(federation: Federation) -> None:
    site, other = stranger(federation, "brest"), stranger(federation, "paris")
    token = federation.hub.invitation("brest")
    problem(other.enrol(token), 401)
    assert site.enrol(token).status_code == 201
    assert site.enrol(token).status_code == 201  # the answer may have been lost
    site.root = SigningKey(b"y" * 32)
    site.certificate = site.certify(1)
    assert problem(site.enrol(token), 401)
    assert site.call("PUT", "/v1/sites/me/certificate", site.certify(2).encode()).status_code == 400
    site.root = SigningKey(hashlib.sha256(b"brest").digest())
    shown = site.call("PUT", "/v1/sites/me/certificate", site.certify(2).encode())
    assert shown.json()["certificate"]["epoch"] == 2
    problem(site.call("PUT", "/v1/sites/me/certificate", site.certify(1).encode()), 409)
    listed = {row["name"]: row for row in federation.client.get("/v1/sites").json()["sites"]}
    assert listed["brest"]["root"] == site.root.public
    assert not listed["brest"]["connected"]
    site.http.close()
    other.http.close()


def test_projects_are_their_manifests(federation: Federation) -> None:
    manifest, post = federation.manifest, federation.client.post
    again = post("/v1/projects", content=manifest.encode())
    assert again.json()["hash"] == manifest.digest()
    assert {grant["state"] for grant in again.json()["grants"].values()} == {"granted"}
    other = manifest.model_copy(update={"hub": manifest.hub.model_copy(update={"signing": "ab" * 32})})
    assert problem(post("/v1/projects", content=other.encode()), 422)["where"] == "manifest.hub"
    members = (*manifest.members[:3], manifest.members[3].model_copy(update={"root": "cd" * 32}))
    other = manifest.model_copy(update={"members": members})
    assert problem(post("/v1/projects", content=other.encode()), 422)["where"] == "manifest.members"
    model = {"template": "package", "package": "12" * 32, "layout": [{"name": "w", "shape": [1, 4]}]}
    other = Manifest.of({**manifest.model_dump(), "model": model, "name": "own"})
    assert "PUT /v1/packages" in problem(post("/v1/projects", content=other.encode()), 422)["todo"]


def test_packages_are_kept_by_hash(federation: Federation) -> None:
    content = b"zip" * 1_000_000
    path = f"/v1/packages/{hashlib.sha256(content).hexdigest()}"
    assert federation.client.head(path).status_code == 404
    assert federation.client.put(path, content=content).status_code == 201
    assert federation.client.put(path, content=content).status_code == 201
    assert federation.client.head(path).status_code == 200
    assert federation.sites["lyon"].call("GET", path).content == content
    problem(httpx.get(federation.hub.url + path, trust_env=False), 401)


def test_a_revocation_takes_the_grant_back_and_a_forged_one_does_not(federation: Federation) -> None:
    manifest = federation.manifest.model_copy(update={"name": "second"})
    assert federation.client.post("/v1/projects", content=manifest.encode()).status_code == 201
    site, name = federation.sites["nice"], manifest.digest()

    def state() -> str:
        return str(federation.client.get(f"/v1/projects/{name}").json()["grants"]["nice"]["state"])

    assert state() == "pending"
    site.grant(manifest)
    assert state() == "granted"
    revocation = Revocation(manifest=name, site="nice", time=int(time.time()))
    forged = revocation.signed(federation.sites["lyon"].root)
    problem(site.call("PUT", "/v1/sites/me/revocations", forged.encode()), 400)
    assert state() == "granted"
    assert site.call("PUT", "/v1/sites/me/revocations", revocation.signed(site.root).encode()).status_code == 204
    assert state() == "revoked"


def test_a_submission_is_safe_to_repeat(federation: Federation) -> None:
    post, key = federation.client.post, {"Idempotency-Key": "once"}
    body = {"project": federation.manifest.digest(), "parameters": {"rounds": 1}}
    first, again = post("/v1/runs", json=body, headers=key), post("/v1/runs", json=body, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    run = first.json()["id"]
    assert again.json()["id"] == run
    body["parameters"] = {"rounds": 2}
    problem(post("/v1/runs", json=body, headers=key), 409)
    with federation.hub.client("eve") as eve:
        assert "ada's" in problem(eve.post("/v1/runs", json=body), 403)["detail"]
        problem(eve.post(f"/v1/runs/{run}/cancel"), 403)
        assert eve.get(f"/v1/runs/{run}").json()["state"] == "queued"
    problem(federation.client.delete(f"/v1/runs/{run}"), 409)
    assert federation.client.post(f"/v1/runs/{run}/cancel").json()["state"] == "cancelled"
    listed = federation.client.get("/v1/runs", params={"state": "cancelled", "project": "heart"}).json()["runs"]
    assert run in {row["id"] for row in listed}


def test_a_long_poll_ends_at_once_when_something_changes(federation: Federation) -> None:
    site = federation.sites["lille"]
    cursor = site.poll(0, wait=0)["cursor"]
    begun = time.monotonic()
    site.poll(cursor, wait=0.5)
    assert time.monotonic() - begun > 0.4

    manifest = federation.manifest.model_copy(update={"name": "third"})
    timer = threading.Timer(0.3, lambda: federation.client.post("/v1/projects", content=manifest.encode()))
    timer.start()
    begun = time.monotonic()
    polled = site.poll(cursor, wait=25)
    assert time.monotonic() - begun < 20
    assert manifest.digest() in polled["projects"]
    timer.join()


def test_the_description_is_complete(federation: Federation) -> None:
    document = federation.client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"Problem", "Manifest", "Keys", "Release", "Grant", "RunRequest"} <= set(schemas)
    text = canonical.encode(document).decode()
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            if path.startswith("/v1/") and path != "/v1/hub":
                assert any(code in operation["responses"] for code in ("401", "503")), (method, path)
            if "422" in operation["responses"]:
                assert "application/problem+json" in operation["responses"]["422"]["content"], (method, path)


def test_the_examples_of_the_description_are_valid() -> None:
    Certificate.of(examples.CERTIFICATE)
    examples.Enrolment.of(examples.ENROLMENT)
    wire.SiteStatus.of(examples.STATUS)
    wire.Keys.of(examples.KEYS)
    wire.SiteReport.of(examples.REPORT)
    Grant.of(examples.GRANT)
    Revocation.of(examples.REVOCATION)


def test_health_and_metrics(federation: Federation) -> None:
    get = federation.client.get
    assert get("/healthz").json() == {"ok": True}
    ready = get("/readyz").json()
    assert ready["ready"]
    assert ready["checks"] == {"database": "ok", "artifacts": "ok", "disk": "ok"}
    about = get("/v1/hub").json()
    assert (about["protocol"], about["signing"]) == (1, federation.manifest.hub.signing)
    text = get("/metrics").text
    assert 'koinon_http_requests_total{method="GET",route="/v1/hub",status="200"}' in text
    assert 'koinon_sites{state="away"}' in text
    assert "nothing" not in text  # no address that somebody asked for becomes a series


def test_messages_for_nothing_are_refused(federation: Federation) -> None:
    site = federation.sites["lyon"]
    place = {"run": "abcdef", "round": 1, "attempt": 1}
    problem(site.call("POST", "/v1/sites/me/bundles/keys", b"{}", **place), 404)
    problem(site.call("GET", "/v1/sites/me/uploads/abcdef/1/1"), 404)
    problem(site.call("GET", f"/v1/sites/me/artifacts/{'0' * 64}"), 404)
    problem(site.call("POST", "/v1/sites/me/bundles/cooking", b"{}", **place), 422)
    assert set(NAMES) <= {row["name"] for row in federation.client.get("/v1/sites").json()["sites"]}
