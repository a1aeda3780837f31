"""The mask graph and the thresholds."""

import random

import pytest

from koinon.protection import graph


def _connected(sites: list[str], k: int, gone: set[str]) -> bool:
    left = set(sites) - gone
    reached, frontier = set(), [next(iter(left))]
    while frontier:
        site = frontier.pop()
        if site not in reached:
            reached.add(site)
            frontier += [peer for peer in graph.neighbours(sites, k, site) if peer in left]
    return reached == left


@pytest.mark.parametrize("n", [3, 4, 5, 10, 49, 50, 51, 60, 61, 75, 150, 299, 300])
def test_quorums_share_an_honest_site_and_masks_are_enough(n: int) -> None:
    c = graph.collusion(n)
    t, k = graph.threshold(n, c), graph.degree(n, c)
    assert 2 * t - n > c
    assert 2 * (t - c) > n - c  # so that the honest cannot release both kinds of share of one peer
    assert t <= n
    assert k == n - 1 if n <= 50 else (k >= c + 0.3 * n + 1 and k % 2 == 0)


def test_the_figures_of_the_design() -> None:
    assert (graph.collusion(300), graph.threshold(300, 60), graph.degree(300, 60)) == (60, 181, 152)
    assert (graph.collusion(10), graph.threshold(10, 2), graph.degree(10, 2)) == (2, 7, 9)


@pytest.mark.parametrize(("n", "k"), [(4, 3), (51, 28), (60, 32), (75, 40), (120, 62)])
def test_neighbours_are_mutual_and_k_each(n: int, k: int) -> None:
    sites = [f"s{i:03}" for i in range(n)]
    peers = {site: graph.neighbours(sites, k, site) for site in sites}
    for site, others in peers.items():
        assert len(others) == len(set(others)) == k
        assert site not in others
        assert all(site in peers[other] for other in others)


@pytest.mark.parametrize("n", [51, 64, 91, 150])
def test_honest_survivors_stay_connected_below_k_removals(n: int) -> None:
    """Removals that a site accepts never cut the graph: at random, and as the two blocks that would cut best."""
    c = graph.collusion(n)
    k, sites, draw = graph.degree(n, c), [f"s{i:03}" for i in range(n)], random.Random(n)
    most = max(missing for missing in range(n) if graph.stays_connected(n, k, c, missing))
    for _ in range(60):
        assert _connected(sites, k, set(draw.sample(sites, c + most)))
    for left in range(c + most + 1):
        start = draw.randrange(n)
        ring = sites[start:] + sites[:start]
        gap = draw.randrange(1, n - c - most)
        assert _connected(sites, k, {*ring[:left], *ring[left + gap : c + most + gap]})


def test_one_removal_more_can_cut_it() -> None:
    n, c = 60, 12
    k, sites = graph.degree(n, c), [f"s{i:03}" for i in range(n)]
    assert not graph.stays_connected(n, k, c, k - c)
    assert not _connected(sites, k, set(graph.neighbours(sites, k, "s007")))


def test_a_complete_graph_cannot_be_cut() -> None:
    assert all(graph.stays_connected(50, 49, 10, missing) for missing in range(50))
