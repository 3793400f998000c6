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


def divide(both: int, whole: int, seeds: int, least: int = 0) -> Allowance:
    """The division between the rungs, known before any shape is.

    The second rung gets half, or if that is more, what whole trainings of one trial and of uniform take with as many of
    the seeds as two thirds pay for; but the first rung keeps its `least`, so that more in all never leaves it with too
    little. Where the second rung cannot have a pair it gets nothing.

    Args:
        both: what is left for the study.
        whole: one training of the uniform net, as long as the base's.
        seeds: of the second rung, at most.
        least: what the first rung needs for trials at all.
    """
    pair = 2 * whole
    pairs = min(2 * both // (3 * pair), seeds)
    second = min(max(both // 2, pairs * pair), max(both - least, 0))
    return Allowance(both, both - second if second >= pair and pairs else both)


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

    First come uniform and the best leader, on as many seeds as can be had for both, since a choice by one seed is
    luck; then every further leader that can be had on all these seeds. Nothing is trained where no leader can stand
    beside uniform. Taking it up again with some of it done, and paid for out of `left`, gives the same.

    Args:
        even: the uniform net, which every leader has to beat.
        leaders: the first rung's best, best first.
        seeds: in this order.
        price: of one training.
        left: what may be spent.
        done: cost nothing any more.
    """

    def cost(shapes: Iterable[Widths], with_seeds: Iterable[int]) -> int:
        return sum(0 if (w, s) in done else price(w) for w in shapes for s in with_seeds)

    rivals = [widths for widths in dict.fromkeys(leaders) if widths != even]
    best = next((widths for widths in rivals if cost((even, widths), seeds[:1]) <= left), None)
    if best is None:
        return []
    chosen = [even, best]
    paid = next(seeds[:n] for n in range(len(seeds), 0, -1) if cost(chosen, seeds[:n]) <= left)
    left -= cost(chosen, paid)
    for widths in rivals:
        if widths != best and cost([widths], paid) <= left:
            chosen.append(widths)
            left -= cost([widths], paid)
    return [(widths, seed) for seed in paid for widths in chosen]
