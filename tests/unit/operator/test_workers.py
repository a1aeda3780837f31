"""How the hospital's quota is shared. Laws that hold for any quota and any Grants."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from koinon.domain.grant import Resources
from koinon_operator.documents import Quota
from koinon_operator.workers import Claim, distribute

GIB = 2**30

resources = st.builds(
    lambda cpus, memory, gpus, least, more: Resources(
        cpus=cpus, memory=memory * GIB, gpus=gpus, min_workers=least, max_workers=least + more
    ),
    st.integers(1, 8),
    st.integers(1, 16),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 5),
)
claims = st.lists(st.tuples(resources, st.integers(0, 5), st.booleans()), max_size=8).map(
    lambda found: [Claim(f"p{n}", wanted, since, running) for n, (wanted, since, running) in enumerate(found)]
)
quotas = st.builds(
    lambda cpu, memory, gpus, pods: Quota(Decimal(cpu), memory * GIB, gpus, pods),
    st.integers(1, 64),
    st.integers(1, 128),
    st.integers(0, 8),
    st.integers(1, 30),
)


def used(given: dict[str, int | None], found: list[Claim]) -> Quota:
    cpu = memory = gpus = pods = 0
    for claim in found:
        count = given[claim.project]
        if count is not None:
            cpu += (1 + count) * claim.resources.cpus
            memory += (1 + count) * claim.resources.memory
            gpus += (1 + count) * claim.resources.gpus
            pods += 1 + count
    return Quota(Decimal(cpu), memory, gpus, pods)


def fits(inner: Quota, outer: Quota) -> bool:
    return all(getattr(inner, name) <= getattr(outer, name) for name in ("cpu", "memory", "gpus", "pods"))


@given(quotas, claims)
def test_the_quota_and_every_grants_bounds_are_kept(quota: Quota, found: list[Claim]) -> None:
    given = distribute(quota, found)
    assert set(given) == {claim.project for claim in found}
    assert fits(used(given, found), quota)
    for claim in found:
        count = given[claim.project]
        assert count is None or claim.resources.min_workers <= count <= claim.resources.max_workers


@given(quotas, claims, st.randoms())
def test_the_order_in_which_grants_are_read_does_not_matter(quota: Quota, found: list[Claim], dice: object) -> None:
    mixed = list(found)
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    assert distribute(quota, mixed) == distribute(quota, found)


@given(quotas, claims, resources)
def test_what_runs_is_never_pushed_out_by_what_waits(quota: Quota, found: list[Claim], wanted: Resources) -> None:
    running = [claim for claim in found if claim.running]
    before = distribute(quota, running)
    after = distribute(quota, [*running, Claim("new", wanted, -1, False)])
    assert all(after[project] is not None for project, count in before.items() if count is not None)


@given(quotas, claims)
def test_nothing_is_left_that_somebody_could_use(quota: Quota, found: list[Claim]) -> None:
    given = distribute(quota, found)
    rest = used(given, found)
    for claim in found:
        count, wanted = given[claim.project], claim.resources
        more = 1 + wanted.min_workers if count is None else 1
        if count is not None and count == wanted.max_workers:
            continue
        grown = Quota(
            rest.cpu + more * wanted.cpus,
            rest.memory + more * wanted.memory,
            rest.gpus + more * wanted.gpus,
            rest.pods + more,
        )
        # What waits may fit into what others got beyond their least, but no worker of it into what is left for all.
        assert count is None or not fits(grown, quota)


def test_extra_workers_are_shared_evenly_and_the_older_grant_first() -> None:
    elastic = Resources(max_workers=10)
    found = [Claim("young", elastic, 2, True), Claim("old", elastic, 1, True)]
    assert distribute(Quota(Decimal(100), 2**50, 0, 9), found) == {"old": 4, "young": 3}


def test_room_goes_to_the_least_of_all_before_the_extra_of_one() -> None:
    old = Claim("old", Resources(max_workers=10), 1, True)
    new = Claim("new", Resources(min_workers=2, max_workers=2), 2, False)
    assert distribute(Quota(Decimal(100), 2**50, 0, 5), [old, new]) == {"old": 1, "new": 2}
