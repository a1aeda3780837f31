"""How a batch is cut into parts, and which rank works on which: a function of numbers alone.

The number of parts is the most workers that the hospital's Grant allows, not how many there are: so it is
only the work that moves when a worker comes or goes, and no sum changes its order.
"""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def cut(batch: Numbers, most: int) -> list[Numbers]:
    """`batch` in at most `most` parts, none of them empty; in their order, their sizes one apart at most."""
    return np.array_split(batch, min(most, len(batch)))


def share(count: int, rank: int, ranks: int) -> range:
    """The parts of one rank, out of `count`: neighbours, as many as the others have, or one more or less.

    With more ranks than parts, some have none.
    """
    return range(rank * count // ranks, (rank + 1) * count // ranks)
