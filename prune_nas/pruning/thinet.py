"""ThiNet: the channels go whose terms the next layer misses least, one by one (Luo et al. 2017, arXiv 1707.06342).

How many go is predefined, as in `l1_norm`. The paper prunes and tunes layer after layer; here all are chosen at once.
"""

from __future__ import annotations

import numpy as np

from prune_nas.pruning.reconstruction import Terms


def choose(found: Terms, keep: int) -> tuple[int, ...]:
    """The channels that stay, ascending.

    Channels are removed greedily: each time the one with which the terms of all removed ones sum to the least, in
    squares over the places (algorithm 1 of the paper, equation 6).

    Args:
        found: shape (places, channels), from `reconstruction.terms`.
        keep: channels that stay, at least 1.
    """
    gram = found.T @ found
    removed = np.zeros(len(gram), dtype=bool)
    joint = np.zeros(len(gram))  # of each channel with the sum of those that are gone
    for _ in range(len(gram) - keep):
        grown = np.where(removed, np.inf, 2 * joint + np.diag(gram))
        worst = int(np.argmin(grown))
        removed[worst] = True
        joint += gram[worst]
    return tuple(np.flatnonzero(~removed).tolist())
