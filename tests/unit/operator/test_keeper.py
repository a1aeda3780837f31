"""Keeping an object: made, changed, repaired, and not fought over for ever. Against an API server of a few lines."""

import copy
import time
from typing import Any, cast

import pytest

from koinon.domain.errors import Conflict, Invalid, NotFound
from koinon_operator.cache import Cache
from koinon_operator.events import Recorder
from koinon_operator.fights import CALM_SECONDS, FIRST_SECONDS, FREE, LONGEST_SECONDS, Fights
from koinon_operator.keeper import Keeper, Outcome
from koinon_operator.kinds import CONFIG_MAP, NETWORK_POLICY, SERVICE, Kind, Object
from koinon_operator.kube import Kube
from koinon_operator.objects import accounts, denial, walls
from tests.unit.operator import samples


class Server:
    """Stores objects as the API server would, as far as the keeper can see."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str, str], Object] = {}
        self.events: list[tuple[str, str]] = []
        self.told: list[str] = []  # when, of each
        self.calls: list[str] = []
        self.refuse = False
        self.adds: tuple[Kind, ...] = ()

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        self.calls.append("get")
        try:
            return copy.deepcopy(self.objects[kind, namespace, name])
        except KeyError:
            raise NotFound("gone") from None

    def create(self, kind: Kind, body: Object) -> Object:
        self.calls.append("create")
        body = self.default(kind, body)
        key = (kind, body["metadata"]["namespace"], body["metadata"]["name"])
        if key in self.objects:
            raise Conflict("there already")
        self.objects[key] = samples.seen(body)
        return copy.deepcopy(self.objects[key])

    def replace(self, kind: Kind, body: Object) -> Object:
        self.calls.append("replace")
        meta = body["metadata"]
        known = self.objects.get((kind, meta["namespace"], meta["name"]))
        if known is None:
            raise NotFound("gone")
        if meta["resourceVersion"] != known["metadata"]["resourceVersion"]:
            raise Conflict("changed meanwhile")
        if self.refuse:
            raise Invalid("field is immutable")
        body = self.default(kind, body)
        self.objects[kind, meta["namespace"], meta["name"]] = samples.seen(body, uid=known["metadata"]["uid"])
        return copy.deepcopy(self.objects[kind, meta["namespace"], meta["name"]])

    def default(self, kind: Kind, body: Object) -> Object:
        """As a newer API server or a webhook would add to what is written."""
        if kind not in self.adds or "spec" not in body:
            return body
        return {**body, "spec": {**body["spec"], "newField": "default"}}

    def delete(self, kind: Kind, namespace: str, name: str, *, grace: int | None = None) -> None:
        self.calls.append("delete")
        if self.objects.pop((kind, namespace, name), None) is None:
            raise NotFound("gone")

    def event(self, about: Object, *, warning: bool, reason: str, message: str, when: str) -> None:
        self.events.append((reason, message))
        self.told.append(when)


class Room:
    """A keeper with its server, cache and a clock to turn."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.server = Server()
        self.cache = Cache()
        recorder = Recorder(cast(Kube, self.server), clock=lambda: self.now)
        self.keeper = Keeper(cast(Kube, self.server), self.cache, recorder, clock=lambda: self.now)
        self.site = samples.seen(samples.site())

    def keep(self, wanted: Object) -> Outcome:
        return self.keeper.keep(wanted, about=self.site).outcome

    def edit(self, kind: Kind, name: str, **fields: Any) -> None:
        """By hand, and seen by the watch."""
        key = (kind, "lyon-work", name)
        self.server.objects[key] = samples.seen({**self.server.objects[key], **fields}, uid="same")
        self.server.objects[key]["metadata"]["managedFields"] = [{"manager": "kubectl-edit", "time": "2023"}]
        self.cache.put(kind, copy.deepcopy(self.server.objects[key]))

    def remove(self, kind: Kind, name: str) -> None:
        self.server.objects.pop((kind, "lyon-work", name))
        self.cache.remove(kind, "lyon-work", name)


@pytest.fixture
def room() -> Room:
    return Room()


def test_it_is_made_once_and_then_left_alone(room: Room) -> None:
    wanted = walls.deny_all("lyon-work")
    assert [room.keep(wanted), room.keep(wanted), room.keep(wanted)] == [Outcome.MADE, Outcome.SAME, Outcome.SAME]
    assert room.server.calls == ["create"]
    assert room.server.events == []


def test_another_wish_changes_it_without_a_word(room: Room) -> None:
    room.keep(denial.config_map("lyon-work", ["a:1"]))
    assert room.keep(denial.config_map("lyon-work", ["b:1"])) is Outcome.CHANGED
    assert room.server.objects[CONFIG_MAP, "lyon-work", "koinon-denial"]["data"] == {"targets": "b:1"}
    assert room.server.events == []


def test_an_edit_by_hand_is_undone_and_told_with_its_author(room: Room) -> None:
    wanted = walls.deny_all("lyon-work")
    room.keep(wanted)
    room.edit(NETWORK_POLICY, "koinon-deny-all", spec={"podSelector": {}, "egress": [{}], "policyTypes": ["Egress"]})
    assert room.keep(wanted) is Outcome.REPAIRED
    assert room.server.objects[NETWORK_POLICY, "lyon-work", "koinon-deny-all"]["spec"] == wanted["spec"]
    ((reason, message),) = room.server.events
    assert reason == "DriftRepaired"
    assert "kubectl-edit" in message
    assert "spec.egress" in message


def test_a_deletion_by_hand_is_undone_and_told(room: Room) -> None:
    wanted = walls.deny_all("lyon-work")
    room.keep(wanted)
    room.remove(NETWORK_POLICY, "koinon-deny-all")
    assert room.keep(wanted) is Outcome.REPAIRED
    assert "deleted by hand" in room.server.events[0][1]


def test_what_the_operator_removed_itself_is_made_again_without_a_word(room: Room) -> None:
    wanted = walls.deny_all("lyon-work")
    room.keep(wanted)
    assert room.keeper.drop(NETWORK_POLICY, "lyon-work", "koinon-deny-all")
    room.cache.remove(NETWORK_POLICY, "lyon-work", "koinon-deny-all")
    assert room.keep(wanted) is Outcome.MADE
    assert room.server.events == []


def test_a_cache_that_is_behind_costs_one_look(room: Room) -> None:
    wanted = walls.deny_all("lyon-work")
    room.keep(wanted)
    made = room.server.objects[NETWORK_POLICY, "lyon-work", "koinon-deny-all"]
    room.remove(NETWORK_POLICY, "koinon-deny-all")
    room.server.objects[NETWORK_POLICY, "lyon-work", "koinon-deny-all"] = samples.seen(made)  # by somebody, unseen
    assert room.keep(wanted) is Outcome.SAME
    stale = denial.config_map("lyon-work", ["a:1"])
    room.keep(stale)
    key = (CONFIG_MAP, "lyon-work", "koinon-denial")
    room.server.objects[key] = samples.seen(room.server.objects[key], uid=room.server.objects[key]["metadata"]["uid"])
    assert room.keep(denial.config_map("lyon-work", ["b:1"])) is Outcome.CHANGED


def test_a_ghost_in_the_cache_is_found_out_when_it_is_dropped(room: Room) -> None:
    room.keep(walls.deny_all("lyon-work"))
    room.server.objects.clear()
    assert not room.keeper.drop(NETWORK_POLICY, "lyon-work", "koinon-deny-all")
    assert room.cache.get(NETWORK_POLICY, "lyon-work", "koinon-deny-all") is None


def test_one_that_is_being_deleted_is_waited_for(room: Room) -> None:
    wanted = walls.deny_all("lyon-work")
    room.keep(wanted)
    live = samples.seen(wanted, deletionTimestamp="2023-11-14T22:13:20Z")
    room.cache.put(NETWORK_POLICY, live)
    kept = room.keeper.keep(wanted, about=room.site)
    assert kept.outcome is Outcome.ENDING
    assert not kept.there


def test_a_field_that_cannot_be_changed_back_makes_it_anew_but_never_a_wall(room: Room) -> None:
    service = accounts.head_service("lyon-work", "0123456789ab")
    room.keep(service)
    room.edit(SERVICE, "p-0123456789ab-head", spec={"type": "ExternalName", "externalName": "elsewhere"})
    room.server.refuse = True
    assert room.keep(service) is Outcome.REPAIRED
    assert room.server.calls[-2:] == ["delete", "create"]
    wall = walls.deny_all("lyon-work")
    room.keep(wall)
    room.edit(NETWORK_POLICY, "koinon-deny-all", spec={"podSelector": {}})
    with pytest.raises(Invalid):
        room.keep(wall)
    assert (NETWORK_POLICY, "lyon-work", "koinon-deny-all") in room.server.objects


def test_somebody_who_keeps_changing_it_is_fought_ever_more_seldom(room: Room) -> None:
    wanted = walls.deny_all("lyon-work")
    room.keep(wanted)
    outcomes = []
    for _ in range(100):
        room.edit(NETWORK_POLICY, "koinon-deny-all", spec={"podSelector": {}})
        outcomes.append(room.keep(wanted))
        room.now += 1
    assert outcomes[:FREE] == [Outcome.REPAIRED] * FREE
    assert FREE < outcomes.count(Outcome.REPAIRED) < FREE + 5
    kept = room.keeper.keep(wanted, about=room.site)
    assert kept.outcome is Outcome.CONTESTED
    assert 0 < kept.wait <= 2 * 100
    contested = [message for reason, message in room.server.events if reason == "Contested"]
    assert len(contested) == 1
    assert "kubectl-edit keeps changing" in contested[0]


def test_fights_pause_ever_longer_up_to_a_bound_and_are_forgotten_in_calm_times() -> None:
    fights, now, waits = Fights(), 0.0, []
    for _ in range(FREE + 12):
        waits.append(fights.wait("a", now))
        now += waits[-1]
        fights.repaired("a", now)
    assert waits[:FREE] == [0.0] * FREE
    assert waits[FREE : FREE + 3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert max(waits) == LONGEST_SECONDS
    assert fights.wait("b", now) == 0.0
    now += LONGEST_SECONDS + CALM_SECONDS + 1
    fights.repaired("a", now)
    assert not fights.contested("a", now)
    fights.forget(now + 1)
    assert fights.wait("a", now) == 0.0


def test_the_same_event_is_not_told_twice_in_a_row(room: Room) -> None:
    recorder = Recorder(cast(Kube, room.server), clock=lambda: room.now)
    for _ in range(3):
        recorder.warn(room.site, "Contested", "same")
    recorder.warn(room.site, "Contested", "other")
    assert [message for _, message in room.server.events] == ["same", "other"]
    room.now += 601
    recorder.say(room.site, "Contested", "same")
    assert len(room.server.events) == 3


def test_what_a_newer_api_server_adds_is_not_fought_but_an_edit_is(room: Room) -> None:
    room.server.adds = (SERVICE,)
    service = accounts.head_service("lyon-work", "0123456789ab")
    assert [room.keep(service) for _ in range(4)] == [Outcome.MADE, Outcome.SAME, Outcome.SAME, Outcome.SAME]
    live = room.server.objects[SERVICE, "lyon-work", "p-0123456789ab-head"]
    room.edit(SERVICE, "p-0123456789ab-head", spec={**live["spec"], "newField": "by hand"})
    assert [room.keep(service), room.keep(service)] == [Outcome.REPAIRED, Outcome.SAME]
    assert room.server.calls.count("replace") == 1


def test_what_somebody_adds_to_every_wall_is_contested(room: Room) -> None:
    room.server.adds = (NETWORK_POLICY,)
    outcomes = [room.keep(walls.deny_all("lyon-work")) for _ in range(FREE + 2)]
    assert outcomes[0] is Outcome.MADE
    assert outcomes[-1] is Outcome.CONTESTED


def test_setting_the_clock_back_neither_stops_repairs_nor_silences_what_is_told(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(cast(Kube, room.server))
    keeper = Keeper(cast(Kube, room.server), room.cache, recorder)
    assert keeper._clock is recorder._clock is time.monotonic
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    recorder.warn(room.site, "Contested", "…")
    assert room.server.told == ["2023-11-14T22:13:20Z"]


def test_who_also_removes_the_operators_mark_is_fought_no_longer(room: Room) -> None:
    wanted = walls.deny_all("lyon-work")
    room.keep(wanted)
    outcomes = []
    for _ in range(2 * FREE):
        key = (NETWORK_POLICY, "lyon-work", "koinon-deny-all")
        meta = {**room.server.objects[key]["metadata"], "annotations": {}}
        room.edit(NETWORK_POLICY, "koinon-deny-all", metadata=meta)
        outcomes.append(room.keep(wanted))
    assert outcomes.count(Outcome.REPAIRED) == FREE
    assert outcomes[-1] is Outcome.CONTESTED
