"""The first phase of a search: train the supernet, score its channels, and choose the widths that a budget leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

from torch import nn

from prune_nas.design.budget import Limits
from prune_nas.design.diagnosis import cuts, diagnose
from prune_nas.design.ledger import train_macs
from prune_nas.design.selection import Selection, select
from prune_nas.errors import PruneNasError
from prune_nas.nets.tracing import Traced
from prune_nas.pruning import penalties
from prune_nas.pruning.importance import channel_scores
from prune_nas.pruning.penalties import Pressure
from prune_nas.search.progress import Bar, View
from prune_nas.search.rundir import Run
from prune_nas.search.scores import load_scores, save_scores
from prune_nas.search.setup import recipe_of
from prune_nas.search.weights import load_weights
from prune_nas.search.work import Performer, Training
from prune_nas.training.loop import Epoch, Setting


@dataclass
class Scoring:
    """The supernet of one run. What it gave is in files; the cached property only reads them once.

    `curve` is called with every epoch.
    """

    run: Run
    traced: Traced
    setting: Setting
    view: View
    limits: Mapping[str, Limits]
    performer: Performer
    curve: Callable[[Epoch], None]

    @property
    def strength(self) -> float:
        """The penalty's lambda: as asked for, or scaled to the schedule."""
        config = self.run.config
        if config.strength is not None:
            return config.strength
        return penalties.strength_for(recipe_of(config, config.supernet_epochs), len(self.setting.data.train))

    def score(self) -> None:
        """Score the supernet's channels, unless their scores are there."""
        target = self.run.file("scores.safetensors")
        if not target.exists():
            scores = channel_scores(self.traced.space, self.supernet())
            save_scores(target, scores, penalty=self.run.config.penalty, strength=self.strength)

    def supernet(self) -> nn.Module:
        """The trained supernet; trained again if its file is not there, as in a run published without weights."""
        path, checkpoint = self.run.file("supernet.safetensors"), self.run.checkpoint("supernet")
        if not path.exists():
            self.run.phase("supernet", "running")
            self._train()
            self.run.phase("supernet", "done")
        checkpoint.unlink(missing_ok=True)
        network = self.traced.build(self.traced.space.widest, seed=self.run.config.seed)
        network.load_state_dict(load_weights(path))
        return network

    @cached_property
    def selections(self) -> dict[str, Selection]:
        """Budget -> what the scores give under it."""
        config, space = self.run.config, self.traced.space
        scores = load_scores(self.run.file("scores.safetensors"), space)
        chosen = {b: select(space, scores, limits, by=config.selection) for b, limits in self.limits.items()}
        accuracy = (self.run.record.get("supernet") or {}).get("val_accuracy")
        diagnosis = diagnose(space, scores, self.strength, chosen, accuracy)
        self.run.note(
            diagnosis={"penalty": config.penalty, "strength": self.strength, **asdict(diagnosis)},
            cuts={b: [asdict(cut) for cut in cuts(space, scores, s)] for b, s in chosen.items()},
        )
        for sentence in diagnosis.sentences:
            self.view.say(f"diagnosis: {sentence}")
        return chosen

    def _train(self) -> None:
        config, run = self.run.config, self.run
        training = Training(
            budget="",
            name="supernet",
            spoken="supernet",
            widths=self.traced.space.widest,
            seed=config.seed,
            epochs=config.supernet_epochs,
            checkpoint=run.checkpoint("supernet"),
            pressure=Pressure(config.penalty, self.strength),
            weights=run.checkpoint("supernet weights"),
        )
        with self.view.phase("supernet", config.supernet_epochs) as bar:
            result = self.performer.perform(training, lambda epoch: self._epoch(bar, epoch))
        if result.val_accuracy is None:
            raise PruneNasError(f"the supernet: {result.error}")
        widest = self.traced.space.cost(self.traced.space.widest).macs
        again = run.file("scores.safetensors").exists()  # then it was trained, and paid for, before
        before = (run.record.get("supernet") if again else None) or {"train_macs": 0, "seconds": 0.0}
        run.note(
            supernet={
                "penalty": config.penalty,
                "strength": self.strength,
                "epochs": result.epochs,
                "val_accuracy": result.val_accuracy,
                "train_macs": before["train_macs"] + train_macs(widest, len(self.setting.data.train), result.epochs),
                "seconds": before["seconds"] + result.seconds,
            }
        )
        run.checkpoint("supernet weights").replace(run.file("supernet.safetensors"))  # once its cost is noted

    def _epoch(self, bar: Bar, epoch: Epoch) -> None:
        self.curve(epoch)
        bar.advance(f"epoch {epoch.number}: {100 * epoch.val_accuracy:.1f} % on validation")
