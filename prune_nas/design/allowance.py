"""What a search may cost, and how its study divides that between short trainings of many and whole ones of few.

All amounts are training macs, as in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from prune_nas.design.space import Widths


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the study of one budget may spend: on both rungs together, and on the first of them."""

    both: int
    first: int


def divide(both: int, whole: int) -> Allowance:
    """The division between the rungs, known before any shape is.

    The second rung gets half, or what a whole training of one trial and one of uniform take if that is more. Where
    these two would take more than two thirds there is no second rung, and the first has it all.

    Args:
        both: what is left for the study.
        whole: one training of the uniform net, as long as the base's.
    """
    pair = 2 * whole
    second = max(both // 2, pair) if 3 * pair <= 2 * both else 0
    return Allowance(both, both - second)


def finalists(
    even: Widths,
    leaders: Iterable[Widths],
    seeds: Sequence[int],
    price: Callable[[Widths], int],
    left: int,
    *,
    done: Collection[tuple[Widths, int]] = (),
) -> list[tuple[Widths, int]]:
    """The second rung's trainings that are paid for: (widths, seed), those that are done among them.

    First come uniform and as many leaders as possible, on one seed; a further seed only if it can be had for all.
    Nothing is trained where no leader can stand beside uniform. Taking it up again with some of it done, and paid
    for out of `left`, gives the same.

    Args:
        even: the uniform net, which every leader has to beat.
        leaders: the first rung's best, best first.
        seeds: in this order.
        price: of one training.
        left: what may be spent.
        done: cost nothing any more.
    """

    def cost(widths: Widths, seed: int) -> int:
        return 0 if (widths, seed) in done else price(widths)

    first, *further = seeds
    chosen, left = [even], left - cost(even, first)
    for widths in leaders:
        if widths not in chosen and cost(widths, first) <= left:
            chosen.append(widths)
            left -= cost(widths, first)
    if len(chosen) == 1:
        return []
    paid = [first]
    for seed in further:
        left -= sum(cost(widths, seed) for widths in chosen)
        if left < 0:
            break
        paid.append(seed)
    return [(widths, seed) for seed in paid for widths in chosen]
