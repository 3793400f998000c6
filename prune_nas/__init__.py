"""prune-nas: neural architecture search by pruning.

The names of `prune_nas.api` are this package's own: `import prune_nas as pn; pn.trace("vgg16")`. They are imported
when they are first used, so that a command that needs none of them starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_nas.api import (
        Budget,
        RunData,
        Studied,
        Trained,
        Widths,
        apply_rule,
        fit_rule,
        load_data,
        load_net,
        load_rule,
        plan_search,
        read_run,
        run_search,
        select,
        study,
        taper,
        trace,
        train_supernet,
        train_widths,
        uniform,
    )

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "RunData",
    "Studied",
    "Trained",
    "Widths",
    "apply_rule",
    "fit_rule",
    "load_data",
    "load_net",
    "load_rule",
    "plan_search",
    "read_run",
    "run_search",
    "select",
    "study",
    "taper",
    "trace",
    "train_supernet",
    "train_widths",
    "uniform",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'prune_nas' has no attribute {name!r}")
    return getattr(import_module("prune_nas.api"), name)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
