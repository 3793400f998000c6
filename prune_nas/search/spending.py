"""What the study of one budget may cost, and what that pays for: `--search-cost`, in training macs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from prune_nas.config import Config
from prune_nas.design.allowance import Allowance, divide, finalists
from prune_nas.design.budget import Limits
from prune_nas.design.ledger import train_macs
from prune_nas.design.projection import uniform_widths
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError
from prune_nas.search.finals import FINALIST_SEEDS

_MOST = 1000  # tenths of a training of the base up to which a search cost that suffices is looked for


@dataclass(frozen=True)
class Spending:
    """A budget's share of a search."""

    config: Config
    space: Space
    limits: Limits
    images: int
    """Training images an epoch."""
    scored: bool
    """Whether a supernet is trained, which counts first."""

    def price(self, widths: Widths, epochs: int) -> int:
        """Training macs of these widths."""
        return train_macs(self.space.cost(widths).macs, self.images, epochs)

    def trials(self, begun: Sequence[Widths]) -> int:
        """What these trials cost."""
        return sum(self.price(widths, self.config.trial_epochs) for widths in begun)

    @cached_property
    def base(self) -> int:
        """The base's training: what search costs are counted in."""
        return self.price(self.space.base, self.config.epochs)

    @cached_property
    def supernet(self) -> int:
        """The supernet's training."""
        return self.price(self.space.widest, self.config.supernet_epochs) if self.scored else 0

    @cached_property
    def even(self) -> Widths:
        """The uniform net, which leaders have to beat."""
        return uniform_widths(self.space, self.limits)

    @cached_property
    def most(self) -> int:
        """The most macs that a network within the limits can have."""
        widest = self.space.cost(self.space.widest).macs
        return min(int(dict(self.limits.bounds).get("macs", widest)), widest)

    @cached_property
    def dearest(self) -> int:
        """The most that a trial can cost."""
        return train_macs(self.most, self.images, self.config.trial_epochs)

    @cached_property
    def allowance(self) -> Allowance:
        """What is left to the study when the supernet is paid for."""
        both = max(int(self.config.search_cost * self.base) - self.supernet, 0)
        if not self.config.finalists:
            return Allowance(both, both)
        whole = self.price(self.even, self.config.epochs)
        return divide(both, whole, self.config.finalist_seeds, self._least)

    def check(self, budget: str) -> None:
        """Refuse a study that would try nothing beside uniform.

        Raises:
            UsageError: naming the settings that would help.
        """
        if self._suffices:
            return
        config = self.config
        costs = [self._at(c / 10) for c in range(1, _MOST)]
        enough, finals = next((one.config.search_cost for one in costs if one._suffices), None), self.for_finalists
        raised = f"Raise it to {enough:g}" if enough else "Raise it"
        raised += f" ({finals:g} for finalists, too)" if finals and finals != enough else ""
        raise UsageError(
            f"--search-cost {config.search_cost:g} (trainings of the base) pays for no study under {budget}: the "
            f"supernet takes {self.supernet / self.base:.2g}, and one trial may take {self.dearest / self.base:.2g}, "
            f"beside what is kept for finalists. {raised}, lower --supernet-epochs and --trial-epochs, or add "
            "--trials 0"
        )

    @property
    def for_finalists(self) -> float | None:
        """The least search cost that pays for finalists, in steps of a tenth; None without finalists."""
        costs = (self._at(c / 10) for c in range(1, _MOST)) if self.config.finalists else ()
        return next((one.config.search_cost for one in costs if one._suffices and one.expected()[1]), None)

    @property
    def _suffices(self) -> bool:
        """Whether the first rung pays for two trials: one of them is uniform."""
        return self.allowance.first >= self._least

    @property
    def _least(self) -> int:
        return min(self.config.trials, 2) * self.dearest

    def _at(self, cost: float) -> Spending:
        return replace(self, config=self.config.model_copy(update={"search_cost": cost}))

    def affords(self, begun: Sequence[Widths]) -> bool:
        """Whether the first rung may train another candidate beside these, whatever it turns out to be."""
        return self.trials(begun) + self.dearest <= self.allowance.first

    def finalists(
        self, begun: Sequence[Widths], leaders: Sequence[Widths], done: set[tuple[Widths, int]]
    ) -> list[tuple[Widths, int]]:
        """The second rung's trainings (widths, seed) that are paid for, those that are done among them."""
        epochs, seed = self.config.epochs, FINALIST_SEEDS + self.config.seed
        paid = self.trials(begun) + sum(self.price(widths, epochs) for widths, _ in done)
        return finalists(
            self.even,
            leaders,
            range(seed, seed + self.config.finalist_seeds),
            lambda widths: self.price(widths, epochs),
            self.allowance.both - paid,
            done=done,
        )

    def expected(self, begun: Sequence[Widths] = ()) -> tuple[int, int]:
        """Trials still to come beside these, and then trainings of finalists, if all shapes cost what uniform does."""
        config, spent = self.config, self.trials(begun)
        trial, whole = (self.price(self.even, epochs) for epochs in (config.trial_epochs, config.epochs))
        free = self.allowance.first - spent - self.dearest
        trials = max(min(config.trials - len(begun), free // trial + 1), 0) if free >= 0 else 0
        paid = (self.allowance.both - spent - trials * trial) // whole
        if not config.finalists or paid < 2:
            return trials, 0
        seeds = min(paid // 2, config.finalist_seeds)
        return trials, seeds * min(paid // seeds, config.finalists + 1)
