"""The networks that a comparison prunes: one for every seed, and for every penalty that a method trains with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prune_nas.design.cases import Case
from prune_nas.design.space import Widths
from prune_nas.pruning.methods import METHODS
from prune_nas.pruning.penalties import Pressure
from prune_nas.pruning.scaling import SCALINGS
from prune_nas.search.work import Result, Training


@dataclass(frozen=True, slots=True)
class Origin:
    """A network that is trained to be pruned; `name` is `none`, or that of the methods' penalty and its share."""

    name: str
    seed: int
    pressure: Pressure | None

    @property
    def key(self) -> str:
        """Its name in `curves.csv` and `run.json`, and that of its file."""
        return f"origin/{self.name}/{self.seed}"


def origin_of(case: Case, seed: int, pressures: Callable[[str, str], Pressure]) -> Origin:
    """The network that a case prunes.

    Args:
        case: the method and its ratio.
        seed: of the network's training.
        pressures: a penalty and a ratio -> what a network is trained under.
    """
    penalty = METHODS[case.method].penalty
    if penalty == "none":
        return Origin("none", seed, None)
    name = f"{penalty}-{case.ratio}" if penalty in SCALINGS else penalty
    return Origin(name, seed, pressures(penalty, case.ratio))


class Origins:
    """Origins as a source of trainings."""

    def __init__(
        self,
        wanted: Sequence[Origin],
        widths: Widths,
        epochs: int,
        *,
        checkpoint: Callable[[Origin], Path],
        weights: Callable[[Origin], Path],
        on_result: Callable[[Origin, Result], None],
    ) -> None:
        """Bind what every training needs; `widths` are the network's own."""
        self._left, self._asked = list(wanted), {origin.key: origin for origin in wanted}
        self._widths, self._epochs = widths, epochs
        self._checkpoint, self._weights, self._on_result = checkpoint, weights, on_result

    @property
    def epochs(self) -> int:
        """Epochs that are still to be trained, or to be continued."""
        return len(self._left) * self._epochs

    def ask(self) -> Training | None:
        """The next training; None at the end."""
        if not self._left:
            return None
        origin = self._left.pop(0)
        return Training(
            budget="",
            name=origin.key,
            spoken=f"network to prune ({origin.name}) seed {origin.seed}",
            widths=self._widths,
            seed=origin.seed,
            epochs=self._epochs,
            checkpoint=self._checkpoint(origin),
            pressure=origin.pressure,
            weights=self._weights(origin),
        )

    def tell(self, training: Training, result: Result) -> None:
        """Pass a result on, then drop its checkpoint."""
        self._on_result(self._asked[training.name], result)
        training.checkpoint.unlink(missing_ok=True)
