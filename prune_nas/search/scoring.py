"""The first phase of a search: train the supernet, score its channels, and choose the widths that a budget leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from prune_nas.design.budget import Limits
from prune_nas.design.diagnosis import Supernet, cuts, diagnose
from prune_nas.design.ledger import train_macs
from prune_nas.design.projection import uniform_widths
from prune_nas.design.selection import Selection, select
from prune_nas.design.words import percent
from prune_nas.errors import PruneNasError
from prune_nas.nets.tracing import Traced
from prune_nas.pruning import penalties
from prune_nas.pruning.importance import channel_scores
from prune_nas.pruning.norms import places
from prune_nas.pruning.penalties import Pressure, start_of
from prune_nas.search.learning import Watch
from prune_nas.search.progress import Bar, View
from prune_nas.search.rundir import Run
from prune_nas.search.scores import load_scores, save_scores
from prune_nas.search.setup import recipe_of
from prune_nas.search.weights import load_weights
from prune_nas.search.work import Performer, Result, Training
from prune_nas.training.loop import Epoch, Setting

_LEAST, _MOST = 0.2, 0.7  # of the channels that a penalty shall take, whatever the budgets are
_WEAKER = 5.0  # times, by which a penalty that killed every channel is made weaker


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
    def pressure(self) -> Pressure:
        """The penalty: as strong as asked for, else until as many channels are gone as the tightest budget takes."""
        config = self.run.config
        recipe = recipe_of(config, config.supernet_epochs, penalty=config.penalty)
        images = len(self.setting.data.train)
        return penalties.pressure_for(
            config.penalty, recipe, images, strength=config.strength, share=self._share(config.prunes_weights)
        )

    def _share(self, weights: bool) -> float:
        """The share of the channels that uniform scaling takes under the tightest budget, within bounds."""
        space = self.traced.space
        whole = sum(space.widest.values())
        left = [] if weights else [sum(uniform_widths(space, one).values()) / whole for one in self.limits.values()]
        return min(max(1 - min(left, default=0.5), _LEAST), _MOST)

    def score(self) -> None:
        """Score the supernet's channels, unless their scores are there."""
        target = self.run.file("scores.safetensors")
        if not target.exists():
            scores, noted = channel_scores(self.traced.space, self.supernet()), self.run.record["supernet"]
            save_scores(target, scores, penalty=noted["penalty"], strength=noted["strength"] or 0.0)

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
        diagnosis = diagnose(space, scores, self.facts, chosen)
        self.run.note(
            diagnosis={
                "penalty": config.penalty,
                "strength": self.facts.strength,
                "accuracy": self.facts.accuracy,
                "guessing": self.facts.chance.guessing,
                **asdict(diagnosis),
            },
            cuts={b: [asdict(cut) for cut in cuts(space, scores, s)] for b, s in chosen.items()},
        )
        for sentence in diagnosis.sentences:
            self.view.say(f"diagnosis: {sentence}")
        return chosen

    @property
    def facts(self) -> Supernet:
        """What is known of the trained supernet."""
        noted, data = self.run.record.get("supernet") or {}, self.setting.data
        return Supernet(
            strength=noted.get("strength"),
            gamma=noted.get("gamma"),
            accuracy=noted.get("val_accuracy"),
            chance=data.chance,
            epochs=self.run.config.supernet_epochs,
        )

    def _train(self) -> None:
        """Train the supernet; where its penalty leaves nothing of it, once more with a weaker penalty.

        Raises:
            PruneNasError: it failed, two penalties left nothing of it, or it did not learn.
        """
        pressure, spent = self.pressure, self._spent_before()
        died: dict[str, Any] = self.run.record.get("supernet_died", {})
        result = None if died else self._attempt(pressure)
        if result is None or result.died:
            if result is not None:
                died = self._cost(result)
                self.run.note(supernet_died=died)
            spent = spent if self._is_again() else _sum(spent, died)
            pressure = replace(pressure, strength=pressure.strength / _WEAKER)
            self.view.say(
                f"the penalty was too strong for the supernet{f' ({result.error})' if result else ''}. The supernet is "
                f"trained again, with a strength of {pressure.strength:.2g} in place of "
                f"{_WEAKER * pressure.strength:.2g}"
            )
            result = self._attempt(pressure)
        if result.val_accuracy is None:
            weaker = f". Use a weaker penalty: --strength {pressure.strength / _WEAKER:.1g}" if result.died else ""
            raise PruneNasError(f"the supernet: {result.error}{weaker}")
        plain = self.traced.build(self.traced.space.widest, seed=self.run.config.seed)
        found = places(self.traced.space, plain)
        self.run.note(
            supernet={
                "penalty": pressure.name,
                "strength": result.strength,
                "gamma": start_of(plain, found) if found else None,
                "epochs": result.epochs,
                "val_accuracy": result.val_accuracy,
                **_sum(spent, self._cost(result)),
            }
        )
        weights = self.run.checkpoint("supernet weights")
        weights.replace(self.run.file("supernet.safetensors"))  # once its cost is noted

    def _attempt(self, pressure: Pressure) -> Result:
        config, run = self.run.config, self.run
        training = Training(
            budget="",
            name="supernet",
            spoken="supernet",
            widths=self.traced.space.widest,
            seed=config.seed,
            epochs=config.supernet_epochs,
            checkpoint=run.checkpoint("supernet"),
            pressure=pressure,
            weights=run.checkpoint("supernet weights"),
        )
        epochs, steps = config.supernet_epochs, config.supernet_steps
        watch = Watch.of(config, self.setting.data, "supernet", epochs, steps, penalty=pressure.name)
        with self.view.phase("supernet", config.supernet_epochs) as bar:
            result = self.performer.perform(training, lambda epoch: self._epoch(bar, watch, epoch))
        if result.val_accuracy is None or pressure.name == "none" or not watch.is_lost(result.val_accuracy):
            return result
        training.checkpoint.unlink(missing_ok=True)  # else the next attempt would go on from its end
        found, guessing = percent(result.val_accuracy), percent(watch.chance.guessing)
        said = f"it ended at {found} on validation, guessing gives {guessing}"
        return replace(result, val_accuracy=None, error=said, died=True)

    def _cost(self, result: Result) -> dict[str, Any]:
        widest = self.traced.space.cost(self.traced.space.widest).macs
        macs = train_macs(widest, len(self.setting.data.train), result.epochs)
        return {"train_macs": macs, "seconds": result.seconds}

    def _spent_before(self) -> dict[str, Any]:
        """What a supernet cost that was trained before: it was paid for, too."""
        before = (self.run.record.get("supernet") if self._is_again() else None) or {"train_macs": 0, "seconds": 0.0}
        return {name: before[name] for name in ("train_macs", "seconds")}

    def _is_again(self) -> bool:
        """Whether a supernet was trained to its end before, and its weights are gone."""
        return self.run.file("scores.safetensors").exists()

    def _epoch(self, bar: Bar, watch: Watch, epoch: Epoch) -> None:
        self.curve(epoch)
        bar.advance(f"{100 * epoch.val_accuracy:.1f} % on validation")
        watch.see(epoch)


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name] + other[name] for name in ("train_macs", "seconds")}
