"""What comes in: watch events, lists, the agents' word, names, settings, probes."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator

import pytest

from koinon_operator import agents, watching
from koinon_operator.agents import Agents, Report
from koinon_operator.cache import Cache
from koinon_operator.kinds import CONFIG_MAP, GRANT, NETWORK_POLICY, POD, RAY_CLUSTER, SECRET, SERVICE, SITE, Object
from koinon_operator.objects import raycluster, walls
from koinon_operator.watching import ONLY_HOME, ONLY_WORK, Feed, field_selector
from tests.unit.operator import samples


def policy(version: int, **changes: object) -> Object:
    made = samples.seen(walls.deny_all("lyon-work"), resourceVersion=str(version), uid="one")
    made["spec"] = {**made["spec"], **changes}
    return made


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache = Cache()
    assert cache.put(NETWORK_POLICY, policy(5)) is not None
    assert cache.put(NETWORK_POLICY, policy(4, egress=[{}])) is None
    assert cache.put(NETWORK_POLICY, policy(5, egress=[{}])) is None
    assert cache.get(NETWORK_POLICY, "lyon-work", "koinon-deny-all") == policy(5)
    newer = policy(10)
    newer["metadata"]["uid"] = "another"
    assert cache.put(NETWORK_POLICY, newer) is not None


def test_a_change_of_status_matters_for_pods_alone() -> None:
    cache = Cache()
    cache.put(NETWORK_POLICY, policy(1))
    change = cache.put(NETWORK_POLICY, {**policy(2), "status": {"a": 1}})
    assert change is not None
    assert not change.essential
    pod = samples.seen(samples.pod(raycluster.build(samples.ray(), workers=0, token="t"), "head"), uid="one")
    cache.put(POD, pod)
    newer = {**pod, "metadata": {**pod["metadata"], "resourceVersion": "99999"}, "status": {"phase": "Failed"}}
    change = cache.put(POD, newer)
    assert change is not None
    assert change.essential


def test_a_list_tells_what_is_gone_but_not_of_what_came_after_it() -> None:
    cache = Cache()
    cache.put(NETWORK_POLICY, policy(5))
    later = samples.seen(walls.project("lyon-work", "0123456789ab"), resourceVersion="20")
    cache.put(NETWORK_POLICY, later)
    gone = cache.replace(NETWORK_POLICY, "lyon-work", [], "10")
    assert [obj["metadata"]["name"] for obj in gone] == ["koinon-deny-all"]
    assert cache.select(NETWORK_POLICY, "lyon-work") == [later]


def test_what_was_deleted_comes_back_neither_by_an_older_list_nor_by_the_answer_to_an_own_write() -> None:
    found, wished = feed()
    cache = found._cache
    found.take(NETWORK_POLICY, "ADDED", policy(5))
    found.take(NETWORK_POLICY, "DELETED", policy(7))
    wished.clear()
    assert cache.put(NETWORK_POLICY, policy(6)) is None
    assert cache.replace(NETWORK_POLICY, "lyon-work", [policy(5)], "6") == []
    assert cache.select(NETWORK_POLICY, "lyon-work") == []
    successor = samples.seen(walls.deny_all("lyon-work"), resourceVersion="9", uid="two")
    found.take(NETWORK_POLICY, "ADDED", successor)
    assert cache.select(NETWORK_POLICY, "lyon-work") == [successor]


def test_a_deletion_is_remembered_also_of_what_was_never_seen_or_went_unseen() -> None:
    cache = Cache()
    cache.remove(NETWORK_POLICY, "lyon-work", "koinon-deny-all", uid="one")
    assert cache.put(NETWORK_POLICY, policy(5)) is None
    other = samples.seen(walls.deny_all("lyon-work"), resourceVersion="7", uid="two")
    cache.put(NETWORK_POLICY, other)
    assert cache.replace(NETWORK_POLICY, "lyon-work", [], "8") == [other]
    assert cache.put(NETWORK_POLICY, other) is None


def test_deletions_are_remembered_for_a_while_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    found = Cache(clock=lambda: now)
    found.remove(NETWORK_POLICY, "lyon-work", "koinon-deny-all", uid="one")
    now += 599
    found.remove(NETWORK_POLICY, "lyon-work", "other", uid="other")
    assert found.put(NETWORK_POLICY, policy(5)) is None
    now += 1
    found.remove(NETWORK_POLICY, "lyon-work", "other", uid="third")
    assert list(found._dead) == ["other", "third"]
    monkeypatch.setattr("koinon_operator.cache._MOST_DEAD", 5)
    for number in range(10):
        found.remove(NETWORK_POLICY, "lyon-work", "other", uid=f"uid-{number}")
    assert len(found._dead) == 5


def test_who_wrote_what_is_gone_is_forgotten_however_it_went() -> None:
    cache = Cache()
    for uid in ("one", "two"):
        obj = samples.seen(walls.deny_all("lyon-work"), resourceVersion="5", uid=uid)
        obj["metadata"]["managedFields"] = [{"manager": "kubectl-edit", "time": "2023"}]
        cache.put(NETWORK_POLICY, obj)
        if uid == "one":
            cache.replace(NETWORK_POLICY, "lyon-work", [], "9")
        else:
            cache.remove(NETWORK_POLICY, "lyon-work", "koinon-deny-all")
        assert cache.editor(NETWORK_POLICY, "lyon-work", "koinon-deny-all") == ""


def test_who_wrote_last_is_remembered_and_the_bulk_of_it_not() -> None:
    cache = Cache()
    obj = policy(1)
    obj["metadata"]["managedFields"] = [
        {"manager": "koinon-operator", "time": "2023-01-01T00:00:00Z"},
        {"manager": "kubectl-edit", "time": "2023-01-02T00:00:00Z"},
        {"manager": "status-writer", "time": "2023-01-03T00:00:00Z", "subresource": "status"},
    ]
    cache.put(NETWORK_POLICY, obj)
    assert cache.editor(NETWORK_POLICY, "lyon-work", "koinon-deny-all") == "kubectl-edit"
    assert "managedFields" not in str(cache.get(NETWORK_POLICY, "lyon-work", "koinon-deny-all"))


def test_objects_of_a_project_are_found_also_by_kuberays_label() -> None:
    cache = Cache()
    service = SERVICE.make("lyon-work", "p-0123456789ab-head-svc", {}, labels={"ray.io/cluster": "p-0123456789ab"})
    cache.put(SERVICE, samples.seen(service))
    assert len(cache.select(SERVICE, "lyon-work", "0123456789ab")) == 1
    assert cache.select(SERVICE, "lyon-work", "other") == []


def feed() -> tuple[Feed, list[tuple[str, str]]]:
    wished: list[tuple[str, str]] = []
    return Feed(Cache(), lambda namespace: namespace.removesuffix("-work"), wished.append), wished


def test_an_event_wishes_for_the_project_or_the_site() -> None:
    found, wished = feed()
    found.take(NETWORK_POLICY, "ADDED", policy(1))
    found.take(NETWORK_POLICY, "ADDED", samples.seen(walls.project("lyon-work", "0123456789ab")))
    grant = samples.seen(samples.grant_resource())
    found.take(GRANT, "ADDED", grant)
    found.take(SITE, None, samples.seen(samples.site()))
    project = grant["spec"]["manifest"][:12]
    assert wished == [("lyon", ""), ("lyon", "0123456789ab"), ("lyon", project), ("lyon", ""), ("lyon", "")]


def test_what_is_known_wishes_for_nothing_and_a_deletion_does() -> None:
    found, wished = feed()
    found.take(NETWORK_POLICY, "ADDED", policy(1))
    found.take(NETWORK_POLICY, "MODIFIED", policy(1))
    found.take(NETWORK_POLICY, "MODIFIED", policy(2))
    assert len(wished) == 1
    found.take(NETWORK_POLICY, "DELETED", policy(3))
    found.take(NETWORK_POLICY, "DELETED", policy(3))
    assert len(wished) == 2


def test_a_label_that_is_edited_by_hand_wishes_for_whose_it_was() -> None:
    found, wished = feed()
    one = samples.seen(walls.project("lyon-work", "0123456789ab"), uid="one")
    found.take(NETWORK_POLICY, "ADDED", one)
    labels = {"koinon.dev/project": "ffffffffffff"}
    other = {**one, "metadata": {**one["metadata"], "labels": labels, "resourceVersion": "99999"}}
    found.take(NETWORK_POLICY, "MODIFIED", other)
    assert set(wished[1:]) == {("lyon", "ffffffffffff"), ("lyon", "0123456789ab"), ("lyon", "")}  # it is foreign now


def test_of_secrets_and_config_maps_one_is_read_by_name() -> None:
    assert field_selector(ONLY_HOME, SECRET) == "metadata.name=koinon-ray"
    assert field_selector(ONLY_HOME, CONFIG_MAP) == "metadata.name=koinon-consents"
    assert field_selector(ONLY_WORK, SECRET) == "metadata.name=koinon-ray"
    assert field_selector(ONLY_WORK, CONFIG_MAP) == "metadata.name=koinon-denial"
    assert field_selector(ONLY_WORK, RAY_CLUSTER) == ""


def test_each_watch_has_its_kinds_and_patches_nothing() -> None:
    watch = watching.Watch((SITE, SECRET), ONLY_HOME, ["lyon"], lambda *_: None, lambda _: None)
    told = watch._settings()
    assert told.scanning.disabled
    assert not told.posting.enabled
    handlers = watch._registry()._watching.get_all_handlers()
    assert sorted(str(handler.id) for handler in handlers) == ["Secret", "Site"]
    assert not watch._registry()._changing.get_all_handlers()


@pytest.fixture
def agent() -> Iterator[tuple[str, Callable[[bytes, int], None]]]:
    """A server that answers what it is told to."""
    answers: list[tuple[bytes, int]] = [(b"{}", 200)]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, status = answers[-1]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    def say(body: bytes, status: int) -> None:
        answers.append((body, status))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", say
    server.shutdown()
    server.server_close()
    thread.join()


SAID = {
    "site": "lyon",
    "version": "0.1.0",
    "connected": True,
    "last_contact": 1_700_000_000.5,
    "clock_offset": -0.2,
    "pending": [{"hash": "ab" * 32, "name": "lung"}],
    "last_round": {"run": "r1", "project": "heart", "round": 3, "kind": "train", "time": 1_700_000_000.0},
    "something": "new",
}


def test_an_agents_word_is_read(agent: tuple[str, Callable[[bytes, int], None]]) -> None:
    url, say = agent
    say(json.dumps(SAID).encode(), 200)
    found = agents.ask(url)
    assert found.reached
    assert found.connected
    assert found.pending == (("lung", "ab" * 32),)
    assert found.last_round == ("heart", "r1", 3, 1_700_000_000.0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"[]", 200),
        (b'{"pending": 7}', 200),
        (b'{"pending": [{}]}', 200),
        (b"{}", 503),
        (b" " * 2**21, 200),
        (b'{"clock_offset": NaN}', 200),
        (b'{"clock_offset": 1e400}', 200),
        (b'{"clock_offset": -1e300}', 200),
        (b'{"version": "\\ud800"}', 200),
        (b"[" * 200_000, 200),
        (b'{"last_round": {"project": "a", "run": "b", "round": 1e400, "time": 1}}', 200),
        (b'{"last_round": {"project": "a", "run": "b", "round": -1, "time": 1}}', 200),
        (b'{"last_round": {"project": "a", "run": "b", "round": 1, "time": NaN}}', 200),
        (b'{"last_round": {"project": "a", "run": "b", "round": 1, "time": 1e20}}', 200),
        (b'{"last_round": {"project": "a", "run": "b", "round": 1, "time": -1e11}}', 200),
    ],
)
def test_whatever_an_agent_answers_nothing_is_raised(
    agent: tuple[str, Callable[[bytes, int], None]], body: bytes, status: int
) -> None:
    url, say = agent
    say(body, status)
    assert agents.ask(url) == Report()


def test_what_an_agent_says_fits_into_a_status(agent: tuple[str, Callable[[bytes, int], None]]) -> None:
    url, say = agent
    last = {"run": "r" * 10_000, "project": "p" * 10_000, "round": 3, "time": 1_700_000_000}
    say(json.dumps({"last_round": last}).encode(), 200)
    assert agents.ask(url).last_round == ("p" * 64, "r" * 64, 3, 1_700_000_000.0)


def test_only_something_new_is_told(agent: tuple[str, Callable[[bytes, int], None]]) -> None:
    url, say = agent
    told: list[str] = []
    found = Agents({"lyon": url})
    assert found.report("lyon") is None
    for offset in (0.1, 0.2, 0.3):
        say(json.dumps({**SAID, "clock_offset": offset}).encode(), 200)
        found.ask_all(told.append)
    assert told == ["lyon"]
    say(json.dumps({**SAID, "connected": False, "trouble": "refused"}).encode(), 200)
    found.ask_all(told.append)
    assert told == ["lyon", "lyon"]
