"""Stop a run whose first training does not learn, before hours are spent on noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from prune_nas.config import Config
from prune_nas.design.learning import FEWEST, Chance
from prune_nas.design.words import percent
from prune_nas.errors import PruneNasError
from prune_nas.search.setup import recipe_of
from prune_nas.training.data import Data
from prune_nas.training.loop import Epoch

_FALL = 0.02  # of the loss of guessing, by which a training loss that fell shows that something is learnt


class NotLearntError(PruneNasError):
    """A training that is no better than guessing after as many steps as it needs."""


@dataclass
class Watch:
    """Looks at the epochs of one training.

    Attributes:
        what: is trained, in words.
        after: epochs after which it must be better than guessing; None where it is too short to tell.
        chance: what guessing reaches on the validation images.
        classes: of the data set.
        tried: settings that were tried, in words.
    """

    what: str
    after: int | None
    chance: Chance
    classes: int
    tried: str
    _losses: list[float] = field(default_factory=list)
    _learnt: bool = False

    @classmethod
    def of(cls, config: Config, data: Data, what: str, epochs: int, steps: int) -> Watch:
        """The watch over a training of so many epochs; `steps` are those that its preset gives it at least, or 0."""
        recipe = recipe_of(config, epochs)
        each = max(len(data.train) // recipe.batch, 1)
        floor = min(math.ceil(max(steps, FEWEST) / each), epochs)
        tried = f"{recipe.optimizer}, learning rate {recipe.lr:g}, batch {recipe.batch}"
        after = floor if floor * each >= FEWEST else None
        return cls(what, after, data.chance, len(data.classes), tried)

    def see(self, epoch: Epoch) -> None:
        """Look at an epoch that ended.

        Raises:
            NotLearntError: the training is over the steps that it needs, and no better than guessing.
        """
        self._losses.append(epoch.train_loss)
        fell = self._losses[0] - epoch.train_loss > _FALL * math.log(self.classes)
        self._learnt |= fell or self.chance.is_beaten(epoch.val_accuracy)
        if self.after is not None and epoch.number >= self.after and not self._learnt:
            raise NotLearntError(
                f"the {self.what} does not learn: {percent(epoch.val_accuracy)} on validation after {epoch.number} "
                f"epochs, guessing gives {percent(self.chance.guessing)}. Tried: {self.tried}. Nothing more is "
                "trained, since all results would be noise. Try another --optimizer (sgd, adamw), a lower --lr, a "
                "weaker penalty (--strength, or --penalty none), or larger images (--image-size); then name another "
                "--run"
            )
