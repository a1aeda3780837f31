"""A hub's writes in a process of their own, to be killed: `python -m tests.services.store_writer URL RUN`.

Goes on where the one before it stopped. Says `committed N` after round N's commit returned.
"""

import sys

from koinon.domain.run import RoundState
from koinon.store.store import Store
from tests.services import federation


def main() -> None:
    store = Store(sys.argv[1])
    run = sys.argv[2]
    store.acquire()
    last = store.rounds(run, last=1)
    number = 0 if not last else last[0].number + (last[0].state is not RoundState.OPEN)
    while True:
        federation.whole_round(store, run, number)
        print(f"committed {number}", flush=True)
        number += 1


main()
