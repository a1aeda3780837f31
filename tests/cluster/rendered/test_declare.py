"""The chart's job that makes the Site what the values say."""

import copy
import itertools
from typing import Any, cast

import pytest

from koinon.domain.errors import Conflict, Invalid, NotFound, Unavailable
from koinon_operator import declare
from koinon_operator.kinds import CONFIG_MAP, Kind, Object
from koinon_operator.kube import Kube

WANTED: Object = {
    "apiVersion": "koinon.dev/v1alpha1",
    "kind": "Site",
    "metadata": {"name": "lyon", "namespace": "lyon", "labels": {"app.kubernetes.io/version": "2"}},
    "spec": {"root": "ab" * 32, "quota": {"cpu": "8"}},
}


class Server:
    """An API server with a ConfigMap, and a Site if there is one."""

    def __init__(self, site: Object | None = None) -> None:
        self.site = site

    def get(self, kind: Kind, _namespace: str, name: str) -> Object:
        if kind == CONFIG_MAP:
            return {"metadata": {"name": name, "uid": "u-1"}}
        if self.site is None:
            raise NotFound("no Site")
        return copy.deepcopy(self.site)

    def create(self, _kind: Kind, body: Object) -> Object:
        self.site = body
        return body

    replace = create


def run(server: Server) -> Object:
    return declare.declare(cast(Kube, server), copy.deepcopy(WANTED))


def test_a_new_site_belongs_to_the_config_map() -> None:
    made = run(Server())
    assert made["spec"] == WANTED["spec"]
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "koinon-site", "uid": "u-1"}
    ]


def test_of_a_site_that_is_there_only_what_the_chart_says_changes() -> None:
    old = {
        **WANTED,
        "metadata": {"name": "lyon", "namespace": "lyon", "resourceVersion": "7", "labels": {"mine": "x"}},
        "spec": {"root": "ab" * 32, "quota": {"cpu": "1"}, "egressProbes": ["192.0.2.1:1"]},
        "status": {"fingerprint": "f"},
    }
    made = run(Server(old))
    assert made["spec"] == WANTED["spec"]
    assert made["metadata"]["labels"] == {"mine": "x", "app.kubernetes.io/version": "2"}
    assert made["metadata"]["resourceVersion"] == "7"  # so that a change meanwhile is a conflict
    assert made["status"] == {"fingerprint": "f"}


def outcome(*failures: Exception) -> tuple[Any, int]:
    """What `persistently` makes of an attempt that fails so and then succeeds; and how often it paused."""
    waiting, pauses = iter(failures), itertools.count()

    def attempt() -> Object:
        if error := next(waiting, None):
            raise error
        return {"done": True}

    made = declare.persistently(attempt, clock=lambda: 0.0, pause=lambda _: cast(None, next(pauses)))
    return made, next(pauses)


def test_what_passes_is_waited_for() -> None:
    assert outcome(NotFound("the kind is not served yet"), Conflict("x"), Unavailable("y")) == ({"done": True}, 3)


def test_what_stays_wrong_is_told_at_once() -> None:
    with pytest.raises(Invalid):
        outcome(Invalid("root cannot be changed"))


def test_it_does_not_wait_for_ever() -> None:
    clock = itertools.count(0, 50)

    def attempt() -> Object:
        raise NotFound("still not")

    with pytest.raises(NotFound):
        declare.persistently(attempt, clock=lambda: float(next(clock)), pause=lambda _: None)
