"""The configuration of a run: one frozen value, resolved from flags, environment, a file, a preset and defaults.

Field names are the long flags of the command line, so that a message naming one names the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from prune_nas.design.budget import Budget, prune_weights
from prune_nas.design.cases import Case
from prune_nas.design.sizes import Size
from prune_nas.errors import UsageError, unknown

ARMS = ("found", "transferred", "pruned", "guided", "uniform", "taper", "random", "inherited", "base")
MORE_ARMS = ("uniform@macs", "uniform@params", "uniform@latency")  # trained only where they are asked for
SCHEDULES = ("scratch-e", "scratch-b")
PAPER_SCHEDULES = ("fine-tune", "rewind", "scratch-e", "scratch-b")  # of a comparison of pruning methods
DEFAULT_CASES = ("l1-norm=0.5", "slimming=0.5", "sss=0.5", "magnitude=0.5")  # of `compare`
ARMS_OF_CASES = ("pruned", "uniform", "taper", "random", "base")
ARMS_OF_WEIGHTS = ("transferred", "pruned", "guided", "uniform", "inherited", "base")
FROM_SUPERNET = ("pruned", "guided", "inherited")  # the arms that need a supernet of the network itself
ENVIRONMENT = "PRUNE_NAS_"

Positive = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Config(BaseModel):
    """Everything that decides what `search` does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    dataset: str
    budget: tuple[str, ...] = ("macs=0.4",)
    preset: str = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    base_width: Factor = 1.0
    supernet_width: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    space: Path | None = None

    image_size: str | None = None
    train_size: Positive | None = None
    val_size: Positive | None = None

    recipe: str = "fast"
    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    batch: Positive | None = None
    lr: Factor | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"

    prior: str | None = None
    prior_budget: str | None = None
    prior_model: str | None = None
    rule: str | None = None
    allow_untrained: bool = False

    penalty: str = "auto"
    strength: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    selection: Literal["per-cost", "threshold"] = "per-cost"
    supernet_epochs: Positive = 6
    supernet_steps: Steps = 0
    trial_epochs: Positive = 4
    trial_steps: Steps = 0
    finalists: Annotated[int, Field(ge=0)] = 3
    finalist_seeds: Positive = 2
    sampler: Literal["tpe", "gp", "random"] = "tpe"
    epochs: Positive = 12
    steps: Steps = 0
    randoms: Positive = 3

    latency_batch: Positive = 1
    latency_threads: Positive | None = None

    sss_strength: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    fine_tune_epochs: Positive | None = None
    scratch_b_cap: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    scratch_b_tuning: bool = False

    # What a later call on the same run may change: how much is asked for, and where it runs.
    cases: tuple[str, ...] = ()
    trials: Annotated[int, Field(ge=0)] = 12
    search_cost: Factor = 2.0
    seeds: Positive = 3
    schedules: tuple[str, ...] = ("scratch-e",)
    arms: tuple[str, ...] = ARMS
    timeout: Factor | None = None
    device: str = "auto"
    devices: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=0)] | None = None
    trials_per_device: Positive | None = None
    threads: Positive | None = None
    data_dir: Path | None = None
    cache_images: bool = False
    storage: Annotated[SecretStr | None, Field(exclude=True)] = None
    study: str | None = None
    heartbeat: Positive = 30

    @field_validator("image_size", mode="before")
    @classmethod
    def _pixels(cls, value: Any) -> Any:
        return None if value is None else str(Size.parse(value))

    @field_validator("data_dir", "space")
    @classmethod
    def _at_home(cls, path: Path | None) -> Path | None:
        return path and path.expanduser()

    @field_validator("budget")
    @classmethod
    def _canonical(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        budgets = [str(Budget.parse(text)) for text in texts]
        if len(set(budgets)) < len(budgets):
            raise UsageError(f"--budget must name each budget once. Got {list(texts)}")
        return tuple(budgets)

    @field_validator("cases")
    @classmethod
    def _each_once(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(Case.parse(text)) for text in texts))

    @field_validator("schedules", "arms")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: Any) -> tuple[str, ...]:
        schedules = PAPER_SCHEDULES if info.data.get("cases") else SCHEDULES
        known = schedules if info.field_name == "schedules" else (*ARMS, *MORE_ARMS)
        for name in names:
            if name not in known:
                raise unknown(info.field_name.rstrip("s"), name, known)
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _of_cases(self) -> Self:
        if bool(self.cases) == bool(self.budget):
            raise UsageError("a run needs either budgets to search under or pruning methods to compare")
        if self.cases and (strange := [arm for arm in self.arms if arm not in (*ARMS_OF_CASES, "guided")]):
            raise UsageError(
                f"a comparison's arms are {', '.join(ARMS_OF_CASES)} and guided. Leave out {', '.join(strange)}"
            )
        return self

    @model_validator(mode="after")
    def _of_one_sort(self) -> Self:
        if not prune_weights(self.budgets):
            return self
        if self.supernet_width != 1:
            raise UsageError("budgets of single weights take the network as it is. Leave --supernet-width out")
        if self.trials:
            raise UsageError("a budget of single weights leaves no widths to search. Add --trials 0")
        for name in ("rule", "prior_model"):
            if getattr(self, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} is about widths. Leave it out under {self.budget[0]}")
        if not set(self.arms) & set(ARMS_OF_WEIGHTS):
            raise UsageError(f"under {self.budget[0]} the arms are {', '.join(ARMS_OF_WEIGHTS)}. Got {self.arms}")
        return self

    @model_validator(mode="after")
    def _of_a_prior(self) -> Self:
        for name in ("prior_budget", "prior_model", "rule"):
            if self.prior is None and getattr(self, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} says something of a prior. Name one with --prior")
        return self

    @model_validator(mode="after")
    def _somebody_trains(self) -> Self:
        if self.devices and self.device not in ("auto", self.devices[0]):
            raise UsageError(f"--devices says where to train. Leave --device {self.device} out")
        return self

    @field_validator("workers", mode="before")
    @classmethod
    def _auto(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets, parsed."""
        return tuple(Budget.parse(text) for text in self.budget)

    @property
    def size(self) -> Size:
        """The image size; `search.subject.settled` has seen to it that there is one."""
        return Size.parse(self.image_size or "32")

    @property
    def prunes_weights(self) -> bool:
        """Whether the budgets are of single weights, so that masks are compared instead of widths."""
        return prune_weights(self.budgets)

    @property
    def tuning_epochs(self) -> int:
        """Epochs of fine-tuning: as asked for, else the paper's 40 of 160, scaled."""
        return self.fine_tune_epochs or max(round(self.epochs / 4), 1)

    def identity(self) -> dict[str, Any]:
        """What must not change between two calls on one run directory."""
        return self.model_dump(mode="json", exclude=set(CHANGEABLE))

    @property
    def run_name(self) -> str:
        """`<model>-<dataset>-<hash>`: the default name of the run directory."""
        plain = Config(model=self.model, dataset=self.dataset).identity()
        own = {name: value for name, value in self.identity().items() if value != plain[name]}
        digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{self.model}-{self.dataset}")
        return f"{safe}-{digest}"


LENGTHS: Mapping[str, str] = {
    "epochs": "steps",
    "supernet_epochs": "supernet_steps",
    "trial_epochs": "trial_steps",
}
"""Epochs of a kind of training -> the optimiser steps that it takes at least."""

_OF_COMPARISONS: Mapping[str, Any] = {"schedules": PAPER_SCHEDULES, "arms": ARMS_OF_CASES, "randoms": 1}

CHANGEABLE = (
    "preset",
    "cases",
    "trials",
    "search_cost",
    "seeds",
    "schedules",
    "arms",
    "timeout",
    "device",
    "devices",
    "workers",
    "trials_per_device",
    "threads",
    "data_dir",
    "cache_images",
    "storage",
    "study",
    "heartbeat",
)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "base_width": 0.25,
        "train_size": 1000,
        "batch": 32,
        "supernet_epochs": 6,
        "supernet_steps": 200,
        "trials": 6,
        "trial_epochs": 2,
        "trial_steps": 60,
        "finalists": 2,
        "epochs": 8,
        "steps": 240,
        "randoms": 2,
    },
    "laptop": {
        "base_width": 0.5,
        "train_size": 10_000,
        "val_size": 2_500,
        "supernet_epochs": 6,
        "supernet_steps": 800,
        "trials": 12,
        "trial_epochs": 4,
        "trial_steps": 400,
        "epochs": 12,
        "steps": 1500,
        "randoms": 2,
    },
    "standard": {
        "supernet_epochs": 20,
        "supernet_steps": 2000,
        "trials": 24,
        "trial_epochs": 8,
        "trial_steps": 800,
        "epochs": 40,
        "steps": 4000,
        "seeds": 3,
    },
    "paper": {
        "recipe": "paper",
        "supernet_epochs": 80,
        "trials": 24,
        "trial_epochs": 32,
        "epochs": 160,
        "seeds": 5,
        "schedules": ("scratch-e", "scratch-b"),
    },
}


def width_of(preset: str | None, model: str) -> float:
    """The factor that a preset puts on a network's widths: built-in networks are narrowed, all others stay as they are.

    Raises:
        UsageError: there is no such preset.
    """
    if preset is None or preset == "auto":
        return 1.0
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return 1.0 if ":" in model else float(PRESETS[preset].get("base_width", 1.0))


def resolve(
    flags: Mapping[str, Any],
    *,
    file: Path | None = None,
    automatic: str = "laptop",
    cases: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """Flags over environment over file over preset over defaults.

    Args:
        flags: field -> value as given on the command line; None and empty tuples mean "not given".
        file: a TOML file of fields.
        automatic: the preset that `auto` stands for on this machine.
        cases: what `compare` compares where nothing is asked for; empty for every other command, which has no cases.
        environment: where `PRUNE_NAS_<FIELD>` is looked up.

    Raises:
        UsageError: a value is unreadable or out of range, or a field or preset is unknown; all problems at once.
    """
    asked = given(flags, file=file, environment=environment)
    if cases:
        asked = {**_OF_COMPARISONS, "cases": cases, **asked, "budget": ()}
        if asked.get("recipe") == "paper":
            asked.setdefault("preset", "paper")
    elif asked.get("cases"):
        raise UsageError(
            "cases are what `compare` compares. For this command leave them out of "
            f"{file if 'cases' in _from_file(file) else f'{ENVIRONMENT}CASES'}"
        )
    if asked.get("lr") is not None and asked.get("optimizer") == "auto":
        raise UsageError("--lr belongs to one optimiser: name it with --optimizer sgd or --optimizer adamw")
    preset = str(asked.get("preset", "auto"))
    preset = automatic if preset == "auto" else preset
    if preset not in PRESETS:
        raise unknown("preset", preset, [*PRESETS, "auto"])
    asked = {**_implied(asked), **asked}
    if str(asked.get("workers", "")) == "0" and asked.get("storage") is None:
        raise UsageError("--workers 0 leaves the work to other machines, which need a --storage to find it in")
    usual = {**PRESETS[preset], "base_width": width_of(preset, str(asked.get("model", "")))}
    try:
        return Config(**{**usual, **asked, "preset": preset})
    except ValidationError as error:
        raise UsageError("\n  ".join(map(_problem, error.errors()))) from None


def _implied(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What settings that were asked for say of others."""
    found: dict[str, Any] = {}
    if asked.get("prior"):
        absent = FROM_SUPERNET if str(asked.get("trials")) != "0" else ("found", "inherited")
        found["arms"] = tuple(arm for arm in ARMS if arm not in absent)
    if any("weights" in str(text) for text in asked.get("budget", ())):
        found["penalty"] = "none"  # magnitude pruning starts from a network that was trained as usual
    if asked.get("recipe") == "paper" or asked.get("preset") == "paper" or "lr" in asked:
        found["optimizer"] = "sgd"  # a learning rate belongs to an optimiser
    # Epochs that were asked for are exactly these, whatever steps the preset asks for.
    return found | {steps: 0 for epochs, steps in LENGTHS.items() if epochs in asked}


def given(
    flags: Mapping[str, Any], *, file: Path | None = None, environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """What a person set: flags over environment over file.

    Raises:
        UsageError: the file is unreadable, or a field is unknown.
    """
    values = {**_from_file(file), **_from_environment(environment)}
    return values | {name: value for name, value in flags.items() if value is not None and value != ()}


def _problem(error: Mapping[str, Any]) -> str:
    """What pydantic says of a setting. For a missing network or data set: where the names are listed."""
    flag = f"--{'.'.join(map(str, error['loc'])).replace('_', '-')}"
    if error["type"] != "missing":
        return f"{flag} {_expected(error)}. Got {error['input']!r}"
    listed = {
        "--model": "`prune-nas models` lists the networks",
        "--dataset": "`prune-nas datasets` lists the data sets",
    }
    return f"{flag} is missing. {listed.get(flag, 'Give it a value')}"


def _expected(error: Mapping[str, Any]) -> str:
    """What a setting must be, from pydantic's error."""
    kind, limits = str(error["type"]), error.get("ctx", {})
    bounds = {"greater_than": ("gt", "more than"), "greater_than_equal": ("ge", "at least"),
              "less_than": ("lt", "less than"), "less_than_equal": ("le", "at most")}  # fmt: skip
    if kind in bounds:
        key, words = bounds[kind]
        return f"must be {words} {limits[key]}"
    named = {"int": "a whole number", "float": "a number", "bool": "true or false", "finite": "a finite number",
             "literal": f"one of {limits.get('expected', '')}", "tuple": "a list", "path": "a path",
             "string": "a text"}  # fmt: skip
    known = named.get(kind.partition("_")[0])
    return f"must be {known}" if known else f"is not valid ({error['msg']})"


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read --config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from None
    values = {name.replace("-", "_"): value for name, value in data.items()}
    for name in values:
        if name not in Config.model_fields:
            raise unknown(f"setting in {path}", name, Config.model_fields)
    return {name: [value] if name in _LISTS and isinstance(value, str) else value for name, value in values.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in Config.model_fields:
        text = environment.get(ENVIRONMENT + name.upper())
        if text is not None:
            values[name] = tuple(text.split(";" if name == "budget" else ",")) if name in _LISTS else text
    if (data := environment.get(f"{ENVIRONMENT}DATA")) is not None:
        values["data_dir"] = data
    known = {*(ENVIRONMENT + name.upper() for name in Config.model_fields), f"{ENVIRONMENT}DATA"}
    for name in environment:
        if name.startswith(ENVIRONMENT) and name not in known and not name.startswith(f"{ENVIRONMENT}REQUIRE_"):
            raise unknown("setting in the environment", name, known)
    return values


_LISTS = ("budget", "cases", "schedules", "arms", "devices")
