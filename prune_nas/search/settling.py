"""What a run settles once, when its data and its network are at hand: penalty, lengths and optimiser.

What was settled is written into `run.json`, and every later call on the run takes it from there.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch

from prune_nas.config import LENGTHS, Config
from prune_nas.design.learning import too_short
from prune_nas.design.ledger import train_macs
from prune_nas.design.subject import Subject
from prune_nas.errors import PruneNasError
from prune_nas.nets import again
from prune_nas.nets.models.sources import runs_code
from prune_nas.nets.tracing import Traced
from prune_nas.pruning.norms import places
from prune_nas.search.progress import View
from prune_nas.search.rundir import Run
from prune_nas.search.setup import lengths_of, recipe_of, setting_of
from prune_nas.search.speed import remembered
from prune_nas.training.data import Data
from prune_nas.training.loop import Setting
from prune_nas.training.probe import probe, steps_for
from prune_nas.training.recipe import OPTIMIZERS


def ready(run: Run, traced: Traced, data: Data, device: torch.device, view: View, *, tries: bool = True) -> Setting:
    """Everything that trainings need: data on the device, a number format, and a configuration with nothing left open.

    Args:
        run: whose `config` is settled.
        traced: its network.
        data: its images.
        device: where it trains.
        view: told of everything that was chosen.
        tries: whether optimisers may be tried; a dry run takes SGD instead.

    Raises:
        UsageError: the data set is another one than the run was begun with.
        PruneNasError: `run.json` is damaged.
    """
    images = len(data.train), len(data.val), data.tests
    subject = Subject.of(traced.space, run.config.base_width, data.name, images)
    run.note(subject=subject.to_dict())
    view.say(str(subject))
    for note in (*data.notes, *traced.notes):
        view.say(note)
    if tries:
        _see_again(run, traced, view)
    setting = setting_of(run, traced, data, device, view)
    _settle(run, traced, setting, view, tries=tries)
    return setting


def _see_again(run: Run, traced: Traced, view: View) -> None:
    """Once a run: see that another process makes the same network from the user's code.

    Raises:
        UsageError: it does not.
    """
    config, space = run.config, traced.space
    if not runs_code(config.model) or run.record.get("made_again"):
        return
    view.say(f"{config.model}: seeing that another process makes the same network")

    def see() -> bool:
        again.see(config.model, input_shape=space.input_shape, classes=space.classes, base_width=config.base_width)
        return True

    file, _, name = config.model.rpartition(":")
    if file.endswith(".py"):
        of = [Path(file).read_text(encoding="utf-8"), name, list(space.input_shape), space.classes, config.base_width]
        remembered(["again", torch.__version__, *of], see, bool, bool)
    else:
        see()
    run.note(made_again=True)


def _settle(run: Run, traced: Traced, setting: Setting, view: View, *, tries: bool) -> None:
    config, images = run.config, len(setting.data.train)
    batch = recipe_of(config, 1).batch
    lengths = lengths_of(config, images)
    penalty = config.penalty
    if penalty == "auto":
        penalty = "l1" if places(traced.space, traced.template) else "none"
    config = config.model_copy(update={**lengths, "penalty": penalty})
    optimizer: str = config.optimizer
    if optimizer == "auto":
        optimizer = _recorded(run) or (
            _probed(run, config, traced, setting, view) if tries else _to_probe(config, setting, view)
        )
    run.config = config.model_copy(update={"optimizer": optimizer})
    run.note(settled={**lengths, "penalty": penalty, "optimizer": optimizer, "lr": recipe_of(run.config, 1).lr,
                      "batch": batch})  # fmt: skip
    used = {name: lengths[name] for name in LENGTHS if name != "trial_epochs" and _is_used(run, name)}
    for sentence in too_short(used, images, batch):
        view.say(sentence)


def _is_used(run: Run, name: str) -> bool:
    return name == "epochs" or not run.config.cases


def _recorded(run: Run) -> str | None:
    """The optimiser that the run chose before; None where it has not."""
    optimizer = run.record.get("settled", {}).get("optimizer")
    if optimizer not in (None, *OPTIMIZERS):
        raise PruneNasError(f"{run.path}/run.json is damaged: its optimizer is {optimizer!r}. Restore it from a copy")
    return None if optimizer is None else str(optimizer)


def _to_probe(config: Config, setting: Setting, view: View) -> str:
    """Say what the choice of the optimiser will cost; a plan takes SGD until then."""
    recipe, images = recipe_of(config, config.epochs), len(setting.data.train)
    steps = steps_for(recipe, images)
    share = len(OPTIMIZERS) * steps / max(recipe.steps(images), 1)
    view.say(
        f"optimizer: {' and '.join(OPTIMIZERS)} will be tried for {steps} steps each on the unpruned network. That "
        f"costs as much as {share:.1f} of its training, which the list below leaves out"
    )
    return "sgd"


def _probed(run: Run, config: Config, traced: Traced, setting: Setting, view: View) -> str:
    """Try every optimiser on the unpruned network, and write down what that showed and cost."""
    space, recipe = traced.space, recipe_of(config, config.epochs)
    steps = steps_for(recipe, len(setting.data.train))
    view.say(f"optimizer: trying {' and '.join(OPTIMIZERS)} for {steps} steps each or more, on the unpruned network")
    begun = time.perf_counter()
    found = probe(lambda: traced.build(space.base, seed=config.seed), setting, recipe, seed=config.seed, steps=steps)
    seconds = round(time.perf_counter() - begun, 3)
    images = len(OPTIMIZERS) * found.steps * min(recipe.batch, len(setting.data.train))
    macs = train_macs(space.cost(space.base).macs, images, 1)
    run.note(
        probe={
            "optimizer": found.optimizer,
            "losses": {name: loss if math.isfinite(loss) else None for name, loss in found.losses.items()},
            "steps": found.steps,
            "train_macs": macs,
            "seconds": seconds,
        }
    )
    losses = ", ".join(
        f"{name} {loss:.3f}" if math.isfinite(loss) else f"{name} diverged" for name, loss in found.losses.items()
    )
    lowest = min(found.losses, key=lambda name: found.losses[name])
    tied = f". {lowest} is lower, but not clearly" if lowest != found.optimizer else ""
    view.say(f"optimizer: {found.optimizer} (training loss at the end of {found.steps} steps: {losses}{tied})")
    return found.optimizer
