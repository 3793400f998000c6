"""Stop a run whose first training does not learn, before hours are spent on noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prune_nas.config import Config
from prune_nas.design.learning import FEWEST, Chance, loss_of_guessing
from prune_nas.design.words import percent
from prune_nas.errors import PruneNasError
from prune_nas.search.setup import recipe_of
from prune_nas.training.data import Data
from prune_nas.training.loop import Epoch

_FALL = 0.02  # of the loss of guessing: a training loss that is so much below it shows that something is learnt
_OF_PLAIN = "another --optimizer (sgd, adamw) or a lower --lr"
_OF_PENALISED = "a weaker penalty (--strength, or --penalty none), another --optimizer (sgd, adamw), a lower --lr"


class NotLearntError(PruneNasError):
    """A training that is no better than guessing after as many steps as it needs."""


@dataclass
class Watch:
    """Looks at the epochs of one training.

    Attributes:
        what: is trained, in words.
        after: epochs after which it must be better than guessing; None where it is too short to tell.
        chance: what guessing reaches on the validation images.
        loss: the training loss of guessing.
        tried: settings that were tried, in words.
        remedy: what to try instead, in words.
    """

    what: str
    after: int | None
    chance: Chance
    loss: float
    tried: str
    remedy: str
    _learnt: bool = False

    @classmethod
    def of(cls, config: Config, data: Data, what: str, epochs: int, steps: int, *, penalty: str = "none") -> Watch:
        """The watch over a training of so many epochs.

        Args:
            config: of the run.
            data: that it trains on.
            what: is trained, in words.
            epochs: of the training.
            steps: that its preset gives it at least, or 0.
            penalty: that it is under.
        """
        recipe = recipe_of(config, epochs, penalty=penalty)
        each = max(len(data.train) // recipe.batch, 1)
        floor = min(math.ceil(max(steps, FEWEST) / each), epochs)
        tried = f"{recipe.optimizer}, learning rate {recipe.lr:g}, batch {recipe.batch}"
        after = floor if floor * each >= FEWEST else None
        loss = loss_of_guessing(
            data.train.labels.bincount(minlength=len(data.classes)).tolist(), recipe.label_smoothing
        )
        remedy = _OF_PLAIN if penalty == "none" else _OF_PENALISED
        return cls(what, after, data.chance, loss, tried, remedy)

    def is_lost(self, accuracy: float) -> bool:
        """Whether a training that ended with this accuracy on validation had the steps that it needs, and guesses."""
        return self.after is not None and not self.chance.is_beaten(accuracy)

    def see(self, epoch: Epoch) -> None:
        """Look at an epoch that ended.

        Raises:
            NotLearntError: the training is over the steps that it needs, and no better than guessing.
        """
        fell = self.loss - epoch.train_loss > _FALL * self.loss
        self._learnt |= fell or self.chance.is_beaten(epoch.val_accuracy)
        if self.after is not None and epoch.number >= self.after and not self._learnt:
            raise NotLearntError(
                f"the {self.what} does not learn: {percent(epoch.val_accuracy)} on validation after {epoch.number} "
                f"epochs, guessing gives {percent(self.chance.guessing)}. Tried: {self.tried}. Nothing more is "
                f"trained, since all results would be noise. Try {self.remedy}, or larger images (--image-size). Then "
                "name another --run"
            )
