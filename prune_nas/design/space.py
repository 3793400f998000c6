"""Widths and the space of one network, with its cost as a closed formula.

Every layer's weight is a product of two extents (`parts`), so macs and params are quadratic forms in the widths:
costing ten thousand candidates is one matrix product, and nothing has to be built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prune_nas.design.parts import Branch, Extent, Frozen, Layer, Segment, Slot, constant, size
from prune_nas.errors import UsageError, unknown


class Widths(Mapping[str, int]):
    """Slot name -> number of channels; immutable and hashable, in the order of the space's slots."""

    __slots__ = ("_items",)

    def __init__(self, widths: Mapping[str, int]) -> None:
        """Copy `widths`; values become plain ints."""
        self._items = {name: int(n) for name, n in widths.items()}

    def __getitem__(self, slot: str) -> int:
        return self._items[slot]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return f"Widths({self._items})"

    def to_json(self) -> str:
        """Compact JSON, as it stands in `trials.csv`."""
        return json.dumps(self._items, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that name these widths in `finals.csv`."""
        return hashlib.sha256(json.dumps(self._items, sort_keys=True).encode()).hexdigest()[:8]


class Cost(NamedTuple):
    """What one network costs.

    `macs` are multiply-accumulates of conv and linear layers at batch 1; `latency` is in milliseconds, by the formula
    that was fitted to measurements, and None where nothing was measured.
    """

    macs: int
    params: int
    latency: float | None = None

    def of(self, kind: str) -> float:
        """The cost called `kind`: `macs`, `params` or `latency`.

        Raises:
            UsageError: the latency was not measured.
        """
        value: float | None = getattr(self, kind)
        if value is None:
            raise UsageError(f"{kind} is unknown until it was measured on this machine")
        return value


@dataclass(frozen=True)
class Space:
    """The slots of one network and everything its cost formula needs; a plain value that JSON can hold.

    `base` holds the widths of the network that the user named: budgets given as fractions are fractions of its
    cost. Ceilings are the supernet's, and lie above `base` where the supernet was widened. `latency` holds milliseconds
    per unit of the terms (`terms`) that `design.latency` found to matter; it is empty where nothing was measured,
    and `base_latency` is the base's own measured time, of which a latency given as a fraction is one.
    A network of several inputs has the shapes of all but the first in `other_inputs`. The slots of one of the residual
    `branches` may all have width 0, floor or not; nothing but a method that takes out blocks gives them that.
    """

    model: str
    input_shape: tuple[int, ...]
    classes: int
    slots: tuple[Slot, ...]
    layers: tuple[Layer, ...]
    frozen: tuple[Frozen, ...]
    base: Widths
    stage_names: tuple[str, ...]
    latency: tuple[tuple[str, float], ...] = ()
    base_latency: float | None = None
    other_inputs: tuple[tuple[int, ...], ...] = ()
    branches: tuple[Branch, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Slot]:
        """Slot name -> slot."""
        return {slot.name: slot for slot in self.slots}

    @property
    def shuffles(self) -> bool:
        """Whether the network shuffles channels, so that none can be followed into a narrower one."""
        return any(slot.shuffled for slot in self.slots)

    @property
    def stages(self) -> int:
        """The number of stages, those without a slot included."""
        return len(self.stage_names)

    @property
    def widest(self) -> Widths:
        """Every slot at its ceiling: the supernet."""
        return Widths({slot.name: slot.ceiling for slot in self.slots})

    @property
    def narrowest(self) -> Widths:
        """Every slot at its floor: the cheapest network of the space."""
        return Widths({slot.name: slot.floor for slot in self.slots})

    def cost(self, widths: Mapping[str, int]) -> Cost:
        """The cost of one network; `widths` must name every slot."""
        rows = np.array([[widths[slot.name] for slot in self.slots]])
        macs, params = self.costs(rows)
        return Cost(int(macs[0]), int(params[0]), float(self.latencies(rows)[0]) if self.latency else None)

    def held(self, kind: str) -> int:
        """The `macs` or `params` of the layers in which no width is free."""
        total = 0
        for layer in self.layers:
            if all(slot is None for slot, _ in (*layer.inputs, *layer.outputs)):
                inputs, outputs = size(layer.inputs, {}), size(layer.outputs, {})
                weights = layer.kernel * inputs * outputs // layer.groups
                total += weights * layer.positions if kind == "macs" else weights + layer.vectors * outputs
        return total

    def costs(self, widths: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Macs and params of many networks at once.

        Args:
            widths: shape (n, slots), a row a network, columns in the order of `slots`.

        Returns:
            Two integer arrays of shape (n,).
        """
        macs, params = (np.rint(_values(form, widths)).astype(np.int64) for form in self._forms)
        for branch, forms in self._branch_forms:  # what is left of a branch without widths
            gone = self._without(branch, widths)
            params[gone] -= np.rint(_values(forms["params"], widths[gone])).astype(np.int64)
            for name in forms.keys() - {"params", "activations"}:  # macs at some number of positions
                macs[gone] -= np.rint(_values(forms[name], widths[gone])).astype(np.int64)
        return macs, params

    def _without(self, branch: Branch, widths: NDArray[Any]) -> NDArray[np.bool_]:
        """Of many networks those without the branch, shape (n,)."""
        gone: NDArray[np.bool_] = (widths[:, [self._index[slot] for slot in branch.slots]] == 0).all(axis=1)
        return gone

    def latencies(self, widths: NDArray[Any]) -> NDArray[np.float64]:
        """Milliseconds of many networks (shape (n, slots)), by the fitted formula; zeros where there is none."""
        found, ms = _values(self._latency_form, widths), dict(self.latency)
        for branch, forms in self._branch_forms:
            gone = self._without(branch, widths)
            found[gone] -= sum(ms.get(name, 0.0) * _values(form, widths[gone]) for name, form in forms.items())
        return found

    def terms(self, widths: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """What a latency may depend on, for many networks (shape (n, slots)): term -> values of shape (n,).

        The terms are a constant, `params`, the `activations` that conv and linear layers write, and the macs at each
        number of positions, apart for full and grouped convolutions, whose macs are not equally fast.
        """
        found = {name: _values(form, widths) for name, form in self._term_forms.items()}
        for branch, forms in self._branch_forms:
            gone = self._without(branch, widths)
            for name, form in forms.items():
                found[name][gone] -= _values(form, widths[gone])
        return found

    @cached_property
    def _forms(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Macs and params as quadratic forms over (widths, 1)."""
        one = self._vector(constant(1))
        macs, params = np.zeros((len(one), len(one))), np.zeros((len(one), len(one)))
        for layer in self.layers:
            weight = self._weight(layer)
            macs += layer.positions * weight
            params += self._params_of(layer)
        return macs, params

    def _params_of(self, layer: Layer) -> NDArray[np.float64]:
        """The numbers in a layer as a quadratic form over (widths, 1)."""
        vectors = layer.vectors * np.outer(self._vector(constant(1)), self._vector(layer.outputs))
        return self._weight(layer) + vectors

    @cached_property
    def _term_forms(self) -> dict[str, NDArray[np.float64]]:
        one = self._vector(constant(1))
        return {"constant": np.outer(one, one), **self._terms_of(self.layers)}

    @cached_property
    def _branch_forms(self) -> list[tuple[Branch, dict[str, NDArray[np.float64]]]]:
        """For every branch the terms of its own layers."""
        layers = {layer.name: layer for layer in self.layers}
        return [(branch, self._terms_of(layers[name] for name in branch.layers)) for branch in self.branches]

    def _terms_of(self, layers: Iterable[Layer]) -> dict[str, NDArray[np.float64]]:
        one = self._vector(constant(1))
        none = np.zeros((len(one), len(one)))
        forms = {"params": none, "activations": none.copy()}
        for layer in layers:
            forms["params"] = forms["params"] + self._params_of(layer)
            if not layer.kernel:
                continue
            forms["activations"] += layer.positions * np.outer(one, self._vector(layer.outputs))
            grouped = layer.kind == "depthwise" or layer.groups > 1
            name = f"{'grouped ' if grouped else ''}macs at {layer.positions}"
            forms[name] = forms.get(name, 0) + layer.positions * self._weight(layer)
        return forms

    @cached_property
    def _latency_form(self) -> NDArray[np.float64]:
        none = np.zeros_like(self._forms[0])
        return sum((ms * self._term_forms[name] for name, ms in self.latency), start=none)

    def _vector(self, extent: Extent) -> NDArray[np.float64]:
        """An extent as a linear form over (widths, 1)."""
        vector = np.zeros(len(self.slots) + 1)
        for slot, times in extent:
            vector[-1 if slot is None else self._index[slot]] += times
        return vector

    def _weight(self, layer: Layer) -> NDArray[np.float64]:
        """The numbers in a layer's weight as a quadratic form over (widths, 1)."""
        return np.outer(self._vector(layer.inputs), self._vector(layer.outputs)) * layer.kernel / layer.groups

    @cached_property
    def _index(self) -> dict[str, int]:
        return {slot.name: i for i, slot in enumerate(self.slots)}

    def indices(self, extent: Extent, kept: Mapping[str, Sequence[int]]) -> list[int]:
        """Where the kept channels of `extent` lie in the widest network; `kept` is slot -> indices of channels."""
        found: list[int] = []
        start = 0
        for slot, times in extent:
            channels = range(1) if slot is None else kept[slot]
            found += [start + channel * times + i for channel in channels for i in range(times)]
            start += times * (1 if slot is None else self.by_name[slot].ceiling)
        return found

    def keep(self, widths: Mapping[str, int]) -> dict[str, float]:
        """The pattern of `widths`: keep ratio per slot, width / ceiling."""
        return {slot.name: widths[slot.name] / slot.ceiling for slot in self.slots}

    def snap(self, keep: Mapping[str, float]) -> Widths:
        """The allowed widths nearest to keep ratios; values outside [floor, ceiling] are clipped."""
        return Widths({slot.name: slot.snap(keep[slot.name] * slot.ceiling) for slot in self.slots})

    def check(self, widths: Mapping[str, int]) -> Widths:
        """`widths` in slot order, if they name exactly the slots and are positive, or 0 throughout a branch.

        Raises:
            UsageError: a slot is missing or unknown, or its width is not a positive integer.
        """
        for name in widths:
            if name not in self.by_name:
                raise unknown(f"slot of {self.model}", name, self.by_name)
        for slot in self.slots:
            if slot.name not in widths:
                raise UsageError(f"widths for {self.model} must name every slot, and {slot.name!r} is missing")
            if int(widths[slot.name]) != widths[slot.name] or widths[slot.name] < 0:
                raise UsageError(f"width of slot {slot.name!r} must be a positive integer. Got {widths[slot.name]!r}")
        gone = {slot for branch in self.gone(widths) for slot in branch.slots}
        if empty := [slot.name for slot in self.slots if not widths[slot.name] and slot.name not in gone]:
            raise UsageError(
                f"width of slot {empty[0]!r} must be a positive integer. Got 0: only all slots of a residual "
                "branch together may be 0"
            )
        return Widths({slot.name: widths[slot.name] for slot in self.slots})

    def gone(self, widths: Mapping[str, int]) -> tuple[Branch, ...]:
        """The residual branches that a network of these widths does without."""
        return tuple(branch for branch in self.branches if not any(widths[slot] for slot in branch.slots))

    def scaled(self, base: float = 1.0, supernet: float = 1.0) -> Space:
        """This space for a base `base` times as wide and a supernet `supernet` times as wide as that base.

        Raises:
            UsageError: a factor is not positive, or `supernet` is below 1.
        """
        if base <= 0:
            raise UsageError(f"--base-width must be above 0. Got {base}")
        if supernet < 1:
            raise UsageError(f"--supernet-width must be at least 1. Got {supernet}")
        if base == supernet == 1:
            return self

        def scale(slot: Slot, factor: float) -> int:
            return max(slot.multiple, round(slot.ceiling * factor / slot.multiple) * slot.multiple)

        widths = Widths({slot.name: scale(slot, base) for slot in self.slots})
        ceilings = {slot.name: scale(slot, base * supernet) for slot in self.slots}
        slots = tuple(
            replace(slot, ceiling=ceilings[slot.name], floor=min(slot.floor, widths[slot.name])) for slot in self.slots
        )
        return replace(self, slots=slots, base=widths)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `space.json`; `from_dict` is its inverse."""
        return {**asdict(replace(self, base=Widths({}))), "base": dict(self.base)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Space:
        """The space that `to_dict` wrote."""

        def extent(segments: Sequence[Sequence[Any]]) -> Extent:
            return tuple(Segment(slot, times) for slot, times in segments)

        return cls(
            model=data["model"],
            input_shape=tuple(data["input_shape"]),
            classes=data["classes"],
            slots=tuple(Slot(**{**slot, "layers": tuple(slot["layers"])}) for slot in data["slots"]),
            layers=tuple(
                Layer(**{**layer, "inputs": extent(layer["inputs"]), "outputs": extent(layer["outputs"])})
                for layer in data["layers"]
            ),
            frozen=tuple(Frozen(**item) for item in data["frozen"]),
            base=Widths(data["base"]),
            stage_names=tuple(data["stage_names"]),
            latency=tuple((name, ms) for name, ms in data.get("latency", ())),
            base_latency=data.get("base_latency"),
            other_inputs=tuple(tuple(shape) for shape in data.get("other_inputs", ())),
            branches=tuple(
                Branch(**{**one, "slots": tuple(one["slots"]), "layers": tuple(one["layers"])})
                for one in data.get("branches", ())
            ),
        )


def _values(form: NDArray[np.float64], widths: NDArray[Any]) -> NDArray[np.float64]:
    """A quadratic form over (widths, 1) at every row of `widths`."""
    row = np.concatenate([widths, np.ones((len(widths), 1))], axis=1).astype(np.float64)
    values: NDArray[np.float64] = ((row @ form) * row).sum(axis=1)
    return values
