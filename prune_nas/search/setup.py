"""What a run works with, made from its configuration: data, traced network, recipes, device and precision."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from prune_nas.config import LENGTHS, Config
from prune_nas.design.files import write_json
from prune_nas.design.learning import epochs_of
from prune_nas.design.records import FINE_TUNE, SCHEMA
from prune_nas.design.space import Space
from prune_nas.errors import PruneNasError, UsageError
from prune_nas.nets.settings import parse_settings, read_settings
from prune_nas.nets.tracing import Traced, trace
from prune_nas.pruning.scaling import SCALINGS
from prune_nas.search.progress import View
from prune_nas.search.rundir import Run, network_file_system, read_json
from prune_nas.search.speed import precision_for
from prune_nas.training.data import Data, load
from prune_nas.training.loop import Setting
from prune_nas.training.precision import Precision, choose_device
from prune_nas.training.recipe import Recipe, recipe

_MOST_WORKERS = 8


def load_data(config: Config, *, download: bool = True) -> Data:
    """The run's data set, its validation split cut by the run's seed."""
    return load(
        config.dataset,
        data_dir=config.data_dir,
        seed=config.seed,
        train_size=config.train_size,
        val_size=config.val_size,
        image_size=config.image_size,
        cache_images=config.cache_images,
        download=download,
    )


def prepare(config: Config) -> tuple[torch.device, Data, Traced]:
    """The device, the data and the network of a run, each seen to work before the run directory is made.

    Raises:
        UsageError, MissingError: one of them cannot be had, or the network does not take the images.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    recipe_of(config, config.epochs)
    device, *_ = [choose_device(name) for name in config.devices or (config.device,)]
    data = load_data(config)
    traced = trace_model(config, data.input_shape, len(data.classes))
    traced.check(next(iter(data.train.batches(4, device=torch.device("cpu"))))[0])
    return device, data, traced


def trace_model(
    config: Config, shape: tuple[int, ...], classes: int, settings: Mapping[str, Any] | None = None
) -> Traced:
    """The run's network at its base and supernet widths, for images of that shape.

    `settings` are the content of the run's own file of settings, where that is not at hand.
    """
    if settings is None and config.space:
        settings = read_settings(config.space)
    traced = trace(
        config.model,
        input_shape=shape,
        classes=classes,
        base_width=config.base_width,
        settings=None if settings is None else parse_settings(settings, "--space"),
    )
    return traced.scaled(supernet=config.supernet_width).starting_as(config.recipe)


def recipe_of(config: Config, epochs: int, schedule: str = "scratch-e", *, penalty: str = "none") -> Recipe:
    """The run's recipe for a number of epochs, with the run's optimiser, batch and learning rate.

    A smaller batch than the recipe's has a learning rate that is smaller in proportion, for SGD (Goyal et al. 2017,
    section 2.1).

    Args:
        config: of the run.
        epochs: of the training.
        schedule: of the training.
        penalty: that the training is under. A penalty on gamma has gammas updated by SGD (`Recipe.penalised`), and
            scaling factors are beside a network that SGD trains.
    """
    optimizer = "adamw" if config.optimizer == "adamw" and penalty not in SCALINGS else "sgd"
    plain = recipe(config.recipe, epochs).using(optimizer)
    if penalty not in ("none", *SCALINGS):
        plain = plain.penalised()
    batch = config.batch or plain.batch
    less = min(batch / plain.batch, 1.0)
    usual = plain.lr * less if optimizer == "sgd" else plain.lr
    asked = None if config.optimizer == "adamw" and optimizer == "sgd" else config.lr  # a rate belongs to one optimiser
    own = replace(plain, batch=batch, lr=asked or usual, gamma_lr=plain.gamma_lr * less)
    return own.tuning() if schedule == FINE_TUNE else own


def lengths_of(config: Config, images: int) -> dict[str, int]:
    """The epochs of each kind of training: as asked for, or as many as the steps need on so many images."""
    batch = recipe_of(config, 1).batch
    pairs = LENGTHS.items()
    return {
        epochs: epochs_of(getattr(config, epochs), getattr(config, steps), images, batch) for epochs, steps in pairs
    }


def on_device(data: Data, device: torch.device) -> Data:
    """The data with its training and validation splits on the device."""
    return replace(data, train=data.train.to(device), val=data.val.to(device))


def cpu_threads(config: Config) -> int:
    """The CPU threads of all workers together: as asked for, else the cores that this process may use."""
    return config.threads or (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def crew_devices(config: Config, device: torch.device) -> list[str]:
    """The device of each worker, at least one.

    As many workers a device as asked for, in turn over the devices; without a word of either, a thread a worker up to
    eight workers on a CPU, and one training at a time on a GPU.
    """
    devices = config.devices or (str(device),)
    if config.workers:
        count = config.workers
    elif config.trials_per_device is None and not config.devices and device.type == "cpu":
        count = min(cpu_threads(config), _MOST_WORKERS)
    else:
        count = len(devices) * (config.trials_per_device or 1)
    return [devices[number % len(devices)] for number in range(count)]


def setting_of(run: Run, traced: Traced, data: Data, device: torch.device, view: View) -> Setting:
    """Data on the device, and the precision: checked once a run, then taken from `run.json`.

    A run that chose a lower precision by itself and goes on where that is far slower changes over, and says so.
    """
    if kind := network_file_system(run.path):
        view.say(
            f"{run.path} lies on a network file system ({kind}), whose locks may not hold: work on it with one command "
            "at a time, and let other machines help through --storage, not through this folder"
        )
    data = on_device(data, device)
    batch = next(iter(data.train.batches(recipe_of(run.config, 1).batch, device=device)))
    recorded = run.record.get("precision")
    subject = traced, traced.space.widest, batch, device
    if recorded and run.record["device"] == device.type:
        precision = _recorded(run)
        if run.config.precision == "auto" and precision.name != "fp32":
            now = precision.or_faster(precision_for("auto", *subject))
            if now.name != precision.name:
                view.say(f"{precision.name} is far slower here than {now.name}, so the run continues in {now.name}")
            precision = now
    else:
        precision = precision_for(run.config.precision, *subject)
        if recorded and recorded["name"] != precision.name:  # begun on a device of another kind
            precision = replace(precision, before=(*recorded.get("before", ()), recorded["name"]))
    about = {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "train": len(data.train),
        "val": len(data.val),
        "test": data.tests,
        "guessing": data.chance.guessing,
        "classes": list(data.classes),
        "mean": data.mean,
        "std": data.std,
    }
    before = run.record.get("data", {}).get("fingerprint", data.fingerprint)
    if before != data.fingerprint:
        raise _changed_data(run.path, before, data.fingerprint)
    run.note(device=device.type, precision=precision.to_dict(), data={**run.record.get("data", {}), **about})
    _keep_space(run, traced)
    spoken = ", ".join(f"{name} {1000 * s:.0f} ms/step" for name, s, _ in precision.checked)
    view.say(f"training in {precision.name} on {device}{f' ({spoken})' if spoken else ''}")
    return Setting(data, device, precision)


def _recorded(run: Run) -> Precision:
    try:
        return Precision.from_dict(run.record["precision"])
    except (KeyError, TypeError, ValueError) as error:
        raise PruneNasError(f"{run.path}/run.json is damaged: `precision` cannot be read ({error!r})") from error


def _keep_space(run: Run, traced: Traced) -> None:
    """Write `space.json`, or see that it is what the network's code and settings still give.

    Its latency formula is not compared: that is `latency.json`'s to keep.

    Raises:
        UsageError: it is not: the network or its settings were changed since the run was begun.
    """
    path = run.file("space.json")
    try:
        before = Space.from_dict(read_json(path)) if path.exists() else traced.space
    except (KeyError, TypeError, ValueError, PruneNasError):
        before = traced.space  # damaged: it is written anew
    if not before.branches:  # a file from before they were read, or none there
        before = replace(before, branches=traced.space.branches)
    if _untimed(before) != _untimed(traced.space):
        raise UsageError(
            f"the layers of {run.config.model} differ from those in {run.path} (first difference: "
            f"{_difference(before, traced.space)}). Restore the code or the --space file, or name another --run"
        )
    write_json(path, {"schema": SCHEMA, **traced.space.to_dict()})


def _difference(before: Space, now: Space) -> str:
    """The first slot or layer in which two unequal spaces differ, if it is these that differ."""
    pairs = [*zip_longest(before.slots, now.slots), *zip_longest(before.layers, now.layers)]
    return next(((old or new).name for old, new in pairs if old != new), "the costs outside the layers")


def _untimed(space: Space) -> Space:
    return replace(space, latency=(), base_latency=None)


def _changed_data(path: Path, before: str, now: str) -> UsageError:
    """The error for a run whose data set is no longer what it was."""
    return UsageError(
        f"{path} used other data (fingerprint {before} then, {now} now). Restore the data set or name another --run"
    )
