"""`train`: one spec from scratch, several seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
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
from prune_nas.training.recipe import recipe


def train_spec(  # noqa: PLR0913  (keyword-only: the command's flags)
    path: Path,
    dataset: str,
    *,
    model: str | None = None,
    epochs: int,
    recipe_name: str,
    schedule: str,
    seeds: Iterable[int],
    sizes: tuple[int | None, int | None],
    device: str,
    precision: str,
    out: Path,
    data_dir: Path | None,
    view: View,
) -> list[dict[str, Any]]:
    """Train a spec from scratch with each seed; weights are saved under a name of all that they depend on.

    It is `<out>/<data set>-<widths' digest>-<schedule>-<epochs>-<seed>-<digest of model, images, recipe and number
    format>.safetensors`.

    Raises:
        UsageError: the spec is not one, or does not fit the data set.
    """
    if schedule not in ("scratch-e", "scratch-b"):
        raise unknown("schedule", schedule, ("scratch-e", "scratch-b"))
    spec = read_spec(path)
    if "weights" in spec:
        raise UsageError(f"{path} is a network with masked weights, and trained anew it would have them all; "
                         "repeat the run that made it with more --seeds")  # fmt: skip
    traced, widths = trace_spec(spec, model)
    place = choose_device(device)
    data = load(
        dataset, data_dir=data_dir, train_size=sizes[0], val_size=sizes[1], image_size=traced.space.input_shape[-1]
    )
    _check(traced.space, data, path)
    setting = setting_for(data, traced, widths, place, precision)
    space = traced.space
    macs = space.cost(widths).macs
    lasting = scratch_b_epochs(epochs, space.cost(space.base).macs, macs) if schedule == "scratch-b" else epochs
    test = setting.data.open_test().to(place)
    about = (space.to_dict(), data.fingerprint, len(data.train), recipe_name, setting.precision.name)
    rest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    results = []
    for seed in seeds:
        with view.phase(f"seed {seed}", lasting) as bar:
            network, done = train(
                lambda seed=seed: traced.build(widths, seed=seed),  # type: ignore[misc]
                setting,
                recipe(recipe_name, lasting),
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


def setting_for(data: Data, traced: Traced, widths: Widths, device: Any, precision: str, batch: int = 128) -> Setting:
    """Data on the device and a precision checked on the network that will be trained."""
    here = dataclasses.replace(data, train=data.train.to(device), val=data.val.to(device))
    sample = next(iter(here.train.batches(batch, device=device)))
    return Setting(here, device, precision_for(precision, traced, widths, sample, device))


def _check(space: Space, data: Data, path: Path) -> None:
    if tuple(space.input_shape) != tuple(data.input_shape) or space.classes != len(data.classes):
        raise UsageError(
            f"{path} takes {space.input_shape} images in {space.classes} classes; {data.name} has "
            f"{data.input_shape} in {len(data.classes)}"
        )
