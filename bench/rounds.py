"""What protection, HTTP and storage add to a round: the whole federation against its local steps, in one run."""

import itertools
import statistics

from koinon.cli.demo import figures
from koinon.client import local
from koinon.client.progress import Step

ROUNDS = 30
TARGET = 0.5  # seconds, the median of a round beyond the slowest site's local steps, four sites on two cores


def main() -> bool:
    with local.local(4) as federation:
        run = federation.create_project("bench").submit(rounds=ROUNDS)
        steps = list(run.watch(900))
    spent = [figures.parts(step, before.closed) for before, step in itertools.pairwise(steps) if _train(step)]
    overheads = sorted(figures.overhead(parts) for parts in spent)
    median, most = statistics.median(overheads), overheads[-1]
    for name in figures.PARTS:
        print(f"{name:<60}{statistics.median(parts.get(name, 0.0) for parts in spent) * 1e3:8.0f} ms a round")
    met = median < TARGET
    print(f"{'beyond the slowest local steps: median, most':<60}{median:8.3f} s {most:.3f} s", end="")
    print(f"   target {TARGET} {'met' if met else 'MISSED'}")
    return met


def _train(step: Step) -> bool:
    return step.kind == "train" and not step.void
