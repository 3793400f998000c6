"""Regression-based pruning: LASSO chooses the channels that reconstruct the next layer (He et al. 2017, 1707.06168).

How many go is predefined, as in `l1_norm`. All layers' channels are chosen from the unpruned network's responses; then
the weights are refitted layer by layer (`reconstruction.refit`).
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import lars_path

from prune_nas.pruning.reconstruction import Terms


def choose(found: Terms, keep: int) -> tuple[int, ...]:
    """The channels that stay, ascending.

    The LASSO of the layer's outputs on the channels' terms, with a penalty that falls until `keep` coefficients are
    not zero (section 3.1 of the paper, which raises it instead: the path is the same). Where the path ends earlier,
    since the rest adds nothing, the channels with the largest terms fill up.

    Args:
        found: shape (places, channels), from `reconstruction.terms`.
        keep: channels that stay, at least 1.
    """
    if keep >= found.shape[1]:
        return tuple(range(found.shape[1]))
    _, _, path = lars_path(found, found.sum(1), method="lasso")
    sizes = (path != 0).sum(0)
    fitting = np.flatnonzero(sizes <= keep)
    coefficients = path[:, fitting[np.argmax(sizes[fitting])]]
    energy = (found**2).sum(0)
    order = np.lexsort((-energy, coefficients == 0))
    return tuple(sorted(order[:keep].tolist()))
