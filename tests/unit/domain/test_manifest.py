import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.domain import parameters
from koinon.domain.errors import Invalid, Refused
from koinon.domain.grant import Grant
from koinon.domain.manifest import Manifest
from koinon.domain.run import Phase, RunState, move
from tests.unit.domain import manifests


def chosen(**given: Any) -> parameters.Parameters:
    return parameters.complete(manifests.build().parameters, given)


def test_its_hash_survives_the_wire_and_any_change_is_another_project() -> None:
    manifest = manifests.build()
    assert Manifest.parse(manifest.encode()).digest() == manifest.digest()
    assert manifests.build(purpose="another").digest() != manifest.digest()


def test_two_members_of_one_key_are_named() -> None:
    members = manifests.values()["members"]
    members[2] = {"site": "nantes", "root": members[0]["root"]}
    with pytest.raises(Invalid, match="members lille and nantes have the same root"):
        manifests.build(members=members)
    members[2] = {"site": "lyon", "root": "cd" * 32}
    with pytest.raises(Invalid, match="members lyon and lyon have the same site"):
        manifests.build(members=members)


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*place, key)
        yield from _places(item, (*place, key))


def _with(place: tuple[Any, ...], value: Any) -> str:
    """The document with `value` at `place`."""
    document = copy.deepcopy(WIRE)
    *parents, last = place
    at = document
    for key in parents:
        at = at[key]
    at[last] = value
    return json.dumps(document)


WIRE = json.loads(manifests.build().encode())
PLACES = list(_places(WIRE))
AWKWARD = st.sampled_from(["NaN", "sNaN", "Infinity", "x", "", "1e30", "1e2000000000", "9" * 5_000, "\ud800", 2**70])
ANY_JSON = st.recursive(
    AWKWARD | st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=400)
@given(place=st.sampled_from(PLACES), value=AWKWARD | ANY_JSON)
def test_whatever_a_document_says_it_is_invalid_or_has_a_hash(place: tuple[Any, ...], value: Any) -> None:
    try:
        found = Manifest.parse(_with(place, value))
    except Invalid:
        return
    assert Manifest.parse(found.encode()).digest() == found.digest()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("parameters", "mu", "minimum"), "NaN", "parameters.mu.real.minimum"),
        (("parameters", "mu", "default"), "x", "parameters.mu.real.default"),
        (("parameters", "rounds", "maximum"), "1e2000000000", "parameters.rounds.integer.maximum"),
        (("protection", "clip"), "1e2000000000", "protection.clip"),
        (("name",), "\ud800", "surrogates"),
    ],
)
def test_numbers_and_text_of_no_use_are_refused_with_the_place(path: tuple[str, ...], value: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        Manifest.parse(_with(path, value))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"surprise": 1}, "surprise"),
        ({"protection": {"min_sites": 5}}, "min_sites 5 is above the 4 members"),
        ({"protection": {"min_sites": 2}}, "min_sites"),
        ({"metrics": ["accurracy"]}, "accurracy"),
        ({"cohorts": {"old": [{"column": "agee", "op": ">", "value": 60}]}}, "agee"),
        ({"recipients": []}, "recipients"),
        ({"name": "Heart!"}, "not a name"),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_place(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        manifests.build(**change)


def test_the_vector_is_update_control_weight_and_metrics() -> None:
    manifest = manifests.build()
    plain = manifest.segments("train", chosen())
    assert [s.name for s in plain][:4] == ["update", "weight", "clipped", "sites"]
    assert plain[0].size == 1 + 3 + 1  # age, three levels of cp, bias
    scaffold = manifest.segments("train", chosen(strategy="scaffold"))
    assert [s.name for s in scaffold][:3] == ["update", "control", "weight"]
    assert manifest.segments("evaluate", chosen())[0].name == "sites"
    assert manifest.upload_bytes("train", chosen()) == 4 * sum(s.size for s in plain)


def test_an_mlp_has_two_layers() -> None:
    layout = manifests.build().layout(chosen(architecture="mlp", hidden=7))
    assert [(t.name, t.shape) for t in layout] == [
        ("0.weight", (7, 4)),
        ("0.bias", (7,)),
        ("2.weight", (1, 7)),
        ("2.bias", (1,)),
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"learning_rat": 0.1}, 'Did you mean "learning_rate"'),
        ({"learning_rate": 11}, "outside 0.0000001 to 10"),
        ({"learning_rate": "nan"}, "not a number"),
        ({"rounds": 1.5}, "not an integer"),
        ({"rounds": True}, "not an integer"),
        ({"strategy": "krum"}, "not one of"),
        ({"cohort": "age > 60"}, "not one of"),
    ],
)
def test_a_run_outside_the_manifest_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        chosen(**given)


def test_numbers_hash_alike_however_they_are_written() -> None:
    assert chosen(learning_rate=0.010, rounds="7") == chosen(learning_rate="0.01", rounds=7)


def test_a_grant_has_a_beginning_and_an_end() -> None:
    grant = Grant(manifest="ab" * 32, site="lyon", not_before=10, expires=20, dataset="heart", vouched={})
    grant.check_now(10)
    with pytest.raises(Refused, match="not valid yet"):
        grant.check_now(9)
    with pytest.raises(Refused, match="expired"):
        grant.check_now(20)
    with pytest.raises(Invalid, match="ends before it starts"):
        Grant.of(grant.model_dump() | {"expires": 10})


def test_states_move_only_forwards() -> None:
    assert move(RunState.QUEUED, RunState.RUNNING) is RunState.RUNNING
    assert move(Phase.KEYS, Phase.SHARES) is Phase.SHARES
    for current, following in [(RunState.COMPLETED, RunState.RUNNING), (RunState.CANCELLED, RunState.QUEUED)]:
        with pytest.raises(Exception, match="cannot become"):
            move(current, following)
    with pytest.raises(Exception, match="cannot become"):
        move(Phase.UNMASK, Phase.MASKED)
