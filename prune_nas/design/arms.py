"""The arms of a comparison as widths, and the list of trainings that the finals owe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prune_nas.design import family
from prune_nas.design.budget import Limits
from prune_nas.design.kernels import Mask
from prune_nas.design.ledger import scratch_b_epochs
from prune_nas.design.projection import uniform_widths
from prune_nas.design.records import KEPT, REWIND, Final
from prune_nas.design.rules import Rule, apply, taper_widths
from prune_nas.design.space import Space, Widths

UNIFORM = "uniform"
UNIFORM_ARMS = (UNIFORM, "uniform@macs", "uniform@params", "uniform@latency")
_RANDOM_SEED = 7919  # random shapes are drawn from their own stream, never from the study's


def widths_of_arms(
    space: Space,
    limits: Limits,
    known: Mapping[str, Widths | None],
    *,
    rule: Rule | None = None,
    randoms: int,
    seed: int,
    wanted: Sequence[str] = (),
) -> dict[str, list[Widths]]:
    """Arm -> its candidates (one, but for `random`), all within the limits; `base` is not among them.

    The first is the subject of the comparison: found, or without a study transferred. Where channels are shuffled there
    is no `inherited`: none of them can be followed into a narrower net.
    `uniform` is the largest uniform net within the limits. `uniform@macs` and the like match the subject by another
    cost; they may be over the limits, and are there only where they are wanted.

    Args:
        space: of all arms.
        limits: the budget made absolute.
        known: the arms `found` (what the study chose), `transferred` (another network's rule, applied) and `pruned`
            (what the supernet's scores gave); None where there is none.
        rule: fitted on `pruned`; None with it.
        randoms: random shapes.
        seed: of the random shapes.
        wanted: arms that were asked for.
    """
    guided = apply(rule, space, limits) if rule is not None else None
    arms = {name: [widths] for name, widths in {**known, "guided": guided}.items() if widths is not None}
    arms[UNIFORM] = [uniform_widths(space, limits)]
    cost = space.cost(next(iter(arms.values()))[0])
    for arm in (arm for arm in UNIFORM_ARMS if arm in wanted and arm != UNIFORM):
        kind = arm.partition("@")[2]
        arms[arm] = [uniform_widths(space, Limits(((kind, cost.of(kind)),)))]
    arms["taper"] = [taper_widths(space, limits)]
    arms["random"] = [family.random_widths(space, limits, _RANDOM_SEED * (seed + 1) + i) for i in range(randoms)]
    if "pruned" in arms and not space.shuffles:
        arms["inherited"] = arms["pruned"]
    return arms


class Key(NamedTuple):
    """What identifies a training: arms that train the same network from scratch share one.

    `start` is empty for fresh weights, else it says which were kept and how they are trained.
    """

    candidate: str
    seed: int
    epochs: int
    start: str


def training_of(row: Final) -> Key:
    """What identifies the training of a row of `finals.csv`."""
    return key_of(row.budget, row.candidate, row.seed, row.schedule, row.epochs)


def key_of(budget: str, candidate: str, seed: int, schedule: str, epochs: int) -> Key:
    """What identifies a training; the budget matters only where weights are kept."""
    return Key(candidate, seed, epochs, f"{schedule} {budget}" if schedule in KEPT else "")


@dataclass(frozen=True, slots=True)
class Job:
    """One training that the finals owe; `budget` is empty for the base.

    The schedules in `KEPT` go on from kept weights. Under a budget of single weights `mask` says which are left.
    """

    budget: str
    arm: str
    widths: Widths
    seed: int
    schedule: str
    epochs: int
    mask: Mask | None = None

    @property
    def candidate(self) -> str:
        """The digest that names the mask or the widths."""
        return self.mask.digest if self.mask else self.widths.digest

    @property
    def key(self) -> tuple[str, str, str, int, str, int]:
        """What identifies its row in `finals.csv`."""
        return self.budget, self.arm, self.candidate, self.seed, self.schedule, self.epochs

    @property
    def training(self) -> Key:
        """What identifies the training itself."""
        return key_of(self.budget, self.candidate, self.seed, self.schedule, self.epochs)


def jobs(
    space: Space,
    arms: Mapping[str, Mapping[str, Sequence[Widths]]],
    *,
    wanted: Sequence[str],
    schedules: Sequence[str],
    seeds: Sequence[int],
    epochs: int,
) -> list[Job]:
    """Every training that was asked for, seed by seed, so that a run cut short holds whole comparisons.

    Args:
        space: whose base sets scratch-b's compute.
        arms: budget text -> arm -> candidates.
        wanted: arms to train.
        schedules: of `scratch-e` and `scratch-b`. The base is trained under scratch-e alone, where the two are the
            same, and the inherited arm under `rewind`.
        seeds: seeds of the finals.
        epochs: the base's.
    """
    base_macs = space.cost(space.base).macs
    owed = []
    for seed in seeds:
        if "base" in wanted:
            owed.append(Job("", "base", space.base, seed, "scratch-e", epochs))
        for budget, candidates in arms.items():
            for arm in (a for a in candidates if a in wanted):
                for widths in candidates[arm]:
                    if arm == "inherited":
                        owed.append(Job(budget, arm, widths, seed, REWIND, epochs))
                        continue
                    for schedule in schedules:
                        longer = scratch_b_epochs(epochs, base_macs, space.cost(widths).macs)
                        lasting = longer if schedule == "scratch-b" else epochs
                        owed.append(Job(budget, arm, widths, seed, schedule, lasting))
    return owed
