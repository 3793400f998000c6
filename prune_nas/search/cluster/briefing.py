"""What a worker on another machine must know of a run, and the workplace that it makes of that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from prune_nas.config import CHANGEABLE, Config
from prune_nas.design.records import SCHEMA
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.nets.models.sources import runs_code
from prune_nas.nets.settings import read_settings
from prune_nas.nets.tracing import Traced
from prune_nas.search.setup import load_data, on_device, trace_model
from prune_nas.search.work import Workplace
from prune_nas.training.data import runs_code as data_runs_code
from prune_nas.training.loop import Setting
from prune_nas.training.precision import Precision, choose_device

_PACKAGE = Path(__file__).resolve().parents[2]
_LEFT_OUT = (
    "space",
    "prior",
    "prior_budget",
    "prior_model",
    "rule",
    "data_dir",
    "device",
    "devices",
    "workers",
    "study",
)
_IDENTITY = ("schema", "config", "settings", "fingerprint", "space")


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker's operator says: where this machine keeps things, and which code may run.

    `model` is needed where the run's network is Python code: a database must not have code imported. `dataset` replaces
    a folder's name that is another here; its content must be the same.
    """

    model: str | None = None
    dataset: str | None = None
    data_dir: Path | None = None
    device: str = "auto"
    threads: int | None = None


@cache
def code_digest() -> str:
    """A digest of the installed package's source: two workers of one run must have the same."""
    content = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        content.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:16]


def briefing(config: Config, traced: Traced, setting: Setting) -> dict[str, Any]:
    """What the workers of a run must know, as plain data: nothing in it names a path of this machine but the data's."""
    own = {name: value for name, value in config.model_dump(mode="json").items() if name not in _LEFT_OUT}
    made = {
        "schema": SCHEMA,
        "version": version("prune-nas"),
        "code": code_digest(),
        "config": own,
        "settings": read_settings(config.space) if config.space else None,
        "space": _space(traced.space),
        "fingerprint": setting.data.fingerprint,
        "precision": setting.precision.name,
        "heartbeat": config.heartbeat,
    }
    return dict(json.loads(json.dumps(made)))  # as it comes back from the database, so that the two can be compared


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What two briefings disagree about, in words; nothing for one and the same run."""
    said = []
    for name in _IDENTITY:
        if name == "config" and isinstance(there.get(name), dict):
            old, new = there[name], here[name]
            fixed = [k for k in new if k not in CHANGEABLE]
            said += [f"{k}: {old.get(k)!r} there, {new[k]!r} now" for k in fixed if old.get(k) != new[k]]
        elif there.get(name) != here.get(name):
            said.append(f"another {name}")
    return said


def workplace(brief: Mapping[str, Any], place: Place) -> Workplace:
    """The workplace that a briefing describes, on this machine.

    Raises:
        UsageError: this machine's code, data or network is not the run's, or the network is code that nobody allowed.
        MissingError: the data set or the device is not here.
    """
    if brief.get("schema") != SCHEMA or brief.get("code") != code_digest():
        raise UsageError(
            f"the run uses version {brief.get('version')} (code {brief.get('code')}), and this machine "
            f"{version('prune-nas')} (code {code_digest()}). Install the same version here"
        )
    try:
        config = Config(**{**brief["config"], "data_dir": place.data_dir})
        there = Space.from_dict(brief["space"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise UsageError(f"the run's briefing is damaged ({type(error).__name__}). Repeat the run's command") from error
    if runs_code(config.model) and place.model is None:
        raise UsageError(
            f"the run's network is Python code, {config.model}. If you trust it and have it here, add --model "
            f"{config.model}"
        )
    if data_runs_code(config.dataset) and place.dataset is None:
        raise UsageError(
            f"the run's data set is Python code, {config.dataset}. If you trust it and have it here, add "
            f"--dataset {config.dataset}"
        )
    config = config.model_copy(
        update={"model": place.model or config.model, "dataset": place.dataset or config.dataset}
    )
    if place.threads:
        torch.set_num_threads(place.threads)
    device = choose_device(place.device)
    data = load_data(config)
    if data.fingerprint != brief["fingerprint"]:
        raise UsageError(
            f"{config.dataset} is other data here (fingerprint {data.fingerprint}) than in the run "
            f"({brief['fingerprint']}). Give this machine the same files (--data-dir, or --dataset folder:DIR)"
        )
    traced = trace_model(config, data.input_shape, len(data.classes), brief.get("settings"))
    if replace(traced.space, model=there.model, latency=(), base_latency=None) != there:
        raise UsageError(f"{config.model} has other layers here than in the run. Install the same code here")
    return Workplace(config, traced, Setting(on_device(data, device), device, Precision(str(brief["precision"]))))


def place_of(study: str, brief: Mapping[str, Any]) -> str:
    """The name of a folder for one run's files: a training of another run must never go on from them."""
    what = json.dumps([study, *(brief.get(name) for name in (*_IDENTITY, "precision"))], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _space(space: Space) -> dict[str, Any]:
    return replace(space, latency=(), base_latency=None).to_dict()
