"""Specs: a network and its widths as a JSON file, such as a run's `best.json`, and the way back to a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from prune_nas.design.files import parse_json
from prune_nas.design.records import SCHEMA
from prune_nas.design.space import Widths
from prune_nas.errors import MissingError, UsageError
from prune_nas.nets.form import set_mode
from prune_nas.nets.models import sources
from prune_nas.nets.settings import parse_settings
from prune_nas.nets.tracing import Traced, trace

_SPEC = ("model", "input_shape", "classes", "widths")


def read_spec(path: Path) -> dict[str, Any]:
    """A spec such as `best.json`.

    Raises:
        UsageError: the file is not a spec.
    """
    if not path.is_file():
        raise UsageError(f"there is no spec at {path}. Name the deploy.json of a run")
    if path.suffix == ".csv":
        raise UsageError(
            f"{path} is a table of widths. To train them: prune-nas transfer {path} --evaluate -m MODEL -d DATASET "
            "-b BUDGET"
        )
    spec = _json(path)
    missing = [key for key in _SPEC if not isinstance(spec, dict) or key not in spec]
    if missing:
        raise UsageError(f"{path} is not a spec: it lacks {', '.join(missing)}")
    if spec.get("schema") != SCHEMA:
        raise UsageError(f"{path} has schema {spec.get('schema')!r}. This version reads schema {SCHEMA}")
    shape, widths = spec["input_shape"], spec["widths"]
    whole = isinstance(shape, list) and isinstance(widths, dict) and [spec["classes"], *shape, *widths.values()]
    if (
        not whole
        or not all(isinstance(n, int) for n in whole)
        or not isinstance(spec.get("base_width", 1.0), (int, float))
    ):
        raise UsageError(
            f"{path} is not a spec: classes must be a whole number, input_shape a list of whole numbers, widths an "
            "object of whole numbers, and base_width a number"
        )
    return dict(spec)


def _json(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not a spec: it is not JSON ({error})") from None


def trace_spec(spec: Mapping[str, Any], model: str | None = None) -> tuple[Traced, Widths]:
    """The network and widths that a spec names.

    Args:
        spec: from `read_spec`.
        model: where the network comes from; None for what the spec says, unless that is Python code: a file that was
            read must not have code run.

    Raises:
        UsageError: the spec names Python code and `model` is None, or the widths do not fit the network.
    """
    named = str(spec["model"]) if model is None else model
    if model is None and sources.runs_code(named):
        raise UsageError(f"this spec names Python code, {named}. If you trust it, add --model {named}")
    traced = trace(
        named,
        input_shape=tuple(spec["input_shape"]),
        classes=int(spec["classes"]),
        base_width=float(spec.get("base_width", 1.0)),
        settings=parse_settings(spec["settings"], "the spec's settings") if spec.get("settings") else None,
    )
    return traced, traced.space.check(spec["widths"])


def load(path: Path | str, *, model: str | None = None) -> nn.Module:
    """The network of a spec with the weights beside it (`best.json` and `best.safetensors`), in eval mode.

    How an image must be fed to it stands in the spec's `preprocessing`.

    Args:
        path: of the spec.
        model: as in `trace_spec`.

    Raises:
        UsageError: the file is not a spec, or the weights are not its network's.
        MissingError: there are no weights beside it.
    """
    path = Path(path)
    traced, widths = trace_spec(read_spec(path), model)
    network, weights = traced.build(widths, seed=0), path.with_suffix(".safetensors")
    if not weights.is_file():
        raise MissingError(f"there are no weights at {weights}. Train them: prune-nas train {path} --dataset ...")
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise UsageError(f"{weights} does not hold the weights of {path}: {str(error).splitlines()[0]}") from error
    return set_mode(network, training=False)
