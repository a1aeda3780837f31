"""Who masks with whom, and how many sites it takes to open a sum (PROTECTION.md, The protocol to build)."""

from collections.abc import Sequence

COMPLETE = 50  # up to so many sites everybody masks with everybody


def collusion(n: int) -> int:
    """How many of `n` sites are assumed to collude with the hub."""
    return max(1, n // 5)


def threshold(n: int, c: int) -> int:
    """How many shares open a secret: any two sets of so many sites share more than `c`, so an honest one."""
    return (n + c) // 2 + 1


def degree(n: int, c: int) -> int:
    """With how many peers a site masks: all, or above 50 sites the smallest even k ≥ c + 0.3 n + 1."""
    if n <= COMPLETE:
        return max(0, n - 1)
    least = c + 1 + -(-3 * n // 10)
    return min(n - 1, least + least % 2)


def neighbours(sites: Sequence[str], k: int, site: str) -> tuple[str, ...]:
    """The peers that `site` masks with; `sites` in the order all agree on.

    The circulant Harary graph H(k, n) for even k (Harary 1962, PNAS 48:1142): k-connected whatever the order.
    """
    n, at = len(sites), sites.index(site)
    if k >= n - 1:
        return tuple(peer for peer in sites if peer != site)
    return tuple(sites[(at + step) % n] for step in range(-(k // 2), k // 2 + 1) if step)


def stays_connected(n: int, k: int, c: int, missing: int) -> bool:
    """Whether the honest of `n` sites are connected for certain without `missing` of them and any `c` colluders."""
    return k >= n - 1 or c + missing < k
