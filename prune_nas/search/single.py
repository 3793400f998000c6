"""`train`: one spec from scratch, several seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prune_nas.design.ledger import scratch_b_epochs, train_macs
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError, unknown
from prune_nas.nets.specs import read_spec, trace_spec
from prune_nas.nets.tracing import Traced
from prune_nas.search.progress import View
from prune_nas.search.speed import precision_for
from prune_nas.search.weights import save_weights
from prune_nas.training.data import Data, load
from prune_nas.training.loop import Setting, accuracy, train
from prune_nas.training.precision import choose_device
from prune_nas.training.probe import probe
from prune_nas.training.recipe import Recipe, recipe

_EPOCHS = 20  # of a spec that does not say


def train_spec(  # noqa: PLR0913  (keyword-only: the command's flags)
    path: Path,
    dataset: str,
    *,
    model: str | None = None,
    settings: Mapping[str, Any],
    schedule: str | None,
    seeds: Iterable[int],
    sizes: tuple[int | None, int | None],
    device: str,
    precision: str,
    out: Path,
    data_dir: Path | None,
    view: View,
) -> list[dict[str, Any]]:
    """Train a spec from scratch with each seed; weights are saved under a name of all that they depend on.

    `settings` are `recipe`, `optimizer`, `batch`, `lr` and `epochs` (of the base). They and the schedule are as in the
    spec where they are None, so that a network is trained as its run did.

    The name is `<out>/<data set>-<widths' digest>-<schedule>-<epochs>-<seed>-<digest of model, images, recipe and
    number format>.safetensors`.

    Raises:
        UsageError: the spec is not one, or does not fit the data set.
    """
    spec = read_spec(path)
    schedule = schedule or str((spec.get("training") or {}).get("schedule", "scratch-e"))
    if schedule not in ("scratch-e", "scratch-b"):
        raise unknown("schedule", schedule, ("scratch-e", "scratch-b"))
    if settings["lr"] is not None and settings["optimizer"] == "auto":
        raise UsageError("--lr belongs to one optimiser: name it with --optimizer sgd or --optimizer adamw")
    if "weights" in spec:
        raise UsageError(f"{path} is a network with masked weights, and `train` would train all its weights. "
                         "Repeat the run that made it with more --seeds")  # fmt: skip
    traced, widths = trace_spec(spec, model)
    plan = _recipe(spec, settings)
    traced = traced.starting_as(plan.name)
    place = choose_device(device)
    data = load(
        dataset, data_dir=data_dir, train_size=sizes[0], val_size=sizes[1], image_size=traced.space.input_shape[1:]
    )
    _check(traced.space, data, path)
    setting = setting_for(data, traced, widths, place, precision)
    space = traced.space
    macs = space.cost(widths).macs
    longer = scratch_b_epochs(plan.epochs, space.cost(space.base).macs, macs)
    plan = plan.lasting(longer if schedule == "scratch-b" else plan.epochs)
    if settings["optimizer"] == "auto":
        plan = _probed(plan, traced, widths, setting, view)
    lasting = plan.epochs
    test = setting.data.open_test().to(place)
    about = (space.to_dict(), data.fingerprint, len(data.train), dataclasses.asdict(plan), setting.precision.name)
    rest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    results = []
    for seed in seeds:
        with view.phase(f"seed {seed}", lasting) as bar:
            network, done = train(
                lambda seed=seed: traced.build(widths, seed=seed),  # type: ignore[misc]
                setting,
                plan,
                seed=seed,
                on_epoch=lambda epoch: bar.advance(f"{100 * epoch.val_accuracy:.1f} % on validation"),
            )
        weights = out / f"{data.name}-{widths.digest}-{schedule}-{lasting}-{seed}-{rest}.safetensors"
        save_weights(weights, network)
        results.append(
            {
                "schema": 1,
                "candidate": widths.digest,
                "seed": seed,
                "schedule": schedule,
                "optimizer": plan.optimizer,
                "lr": plan.lr,
                "batch": plan.batch,
                "epochs": lasting,
                "macs": macs,
                "params": space.cost(widths).params,
                "val_accuracy": done[-1].val_accuracy,
                "test_accuracy": accuracy(network, test, setting),
                "train_macs": train_macs(macs, len(data.train), lasting),
                "seconds": sum(epoch.seconds for epoch in done),
                "weights": str(weights),
            }
        )
    return results


def _recipe(spec: Mapping[str, Any], settings: Mapping[str, Any]) -> Recipe:
    """The recipe that was asked for; what was not is as the spec's own network was trained."""
    own = spec.get("training") or {}
    asked = {name: value for name, value in settings.items() if value is not None}
    merged: dict[str, Any] = {"recipe": "fast", "epochs": _EPOCHS, **own, **asked}
    plain = recipe(str(merged["recipe"]), int(merged["epochs"]))
    optimizer = "sgd" if merged.get("optimizer") in (None, "auto") else str(merged["optimizer"])
    made = plain.using(optimizer)
    batch = int(merged.get("batch") or made.batch)
    kept = "lr" in own and all(asked.get(name, own.get(name)) == own.get(name) for name in ("optimizer", "batch"))
    usual = made.lr * min(batch / made.batch, 1.0) if optimizer == "sgd" else made.lr
    return dataclasses.replace(made, batch=batch, lr=float(asked.get("lr", own["lr"] if kept else usual)))


def _probed(plan: Recipe, traced: Traced, widths: Widths, setting: Setting, view: View) -> Recipe:
    found = probe(lambda: traced.build(widths, seed=0), setting, plan, seed=0)
    view.say(f"optimizer: {found.optimizer}")
    return plan.using(found.optimizer)


def setting_for(data: Data, traced: Traced, widths: Widths, device: Any, precision: str, batch: int = 128) -> Setting:
    """Data on the device and a precision checked on the network that will be trained."""
    here = dataclasses.replace(data, train=data.train.to(device), val=data.val.to(device))
    sample = next(iter(here.train.batches(batch, device=device)))
    return Setting(here, device, precision_for(precision, traced, widths, sample, device))


def _check(space: Space, data: Data, path: Path) -> None:
    if tuple(space.input_shape) != tuple(data.input_shape) or space.classes != len(data.classes):
        raise UsageError(
            f"{path} takes {space.input_shape} images in {space.classes} classes, and {data.name} has "
            f"{data.input_shape} in {len(data.classes)}"
        )
