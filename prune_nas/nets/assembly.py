"""Make a space of what the walk over a network found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from prune_nas.design.parts import DEFAULT_FLOOR, Frozen, Layer, Slot, constant, size
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError, unknown
from prune_nas.nets.channels import Channels, Part
from prune_nas.nets.graph import Graph
from prune_nas.nets.positions import Position, positions, stages
from prune_nas.nets.reading import Reading
from prune_nas.nets.settings import SlotSettings, SpaceSettings

LEFTOVER = "fixed"  # the kind of what has parameters or macs but no rule; it is never rebuilt


def assemble(
    reading: Reading,
    settings: SpaceSettings,
    name: str,
    input_shape: tuple[int, ...],
    classes: int,
    doubts: Mapping[str, str],
) -> Space:
    """The slots, layers and frozen dimensions of one network; settings are applied.

    `doubts` (slot -> reason) are frozen, too: a count has refuted what was read of them (`proof`).

    Raises:
        UsageError: settings name a slot that does not exist or ask for impossible widths, or no width is free.
    """
    channels = reading.channels
    _tie_asked(channels, settings, name)
    for root in channels.roots():
        source = channels.sources(root)[0]
        if source in doubts and channels.reason(root) is None:
            channels.freeze((Part(root, 1),), doubts[source])
    _freeze_asked(channels, settings, name, doubts)
    names = {root: channels.sources(root)[0] for root in channels.roots() if channels.reason(root) is None}
    maps = [one.spatial for one in reading.records.values() if one.kind in ("conv", "depthwise")]
    found = stages([*maps, *(reading.records[slot].spatial for slot in names.values())])
    firsts = {slot: (reading.records[slot].spatial, reading.records[slot].level) for slot in names.values()}
    places = positions(firsts, list(found))
    slots = tuple(_slot(channels, root, places[slot], settings) for root, slot in names.items())
    if settings.stage_names and len(settings.stage_names) != len(found):
        raise UsageError(
            f"stage_names of {name} must be {len(found)} names, one for each of {', '.join(found.values())}. "
            f"Got {len(settings.stage_names)}"
        )
    return Space(
        model=name,
        input_shape=tuple(input_shape),
        classes=classes,
        slots=slots,
        layers=_layers(reading, names),
        frozen=_frozen(channels),
        base=Widths({slot: channels.width(root) for root, slot in names.items()}),
        stage_names=settings.stage_names or tuple(found.values()),
    )


def with_leftovers(space: Space, network: nn.Module, graph: Graph) -> Space:
    """`space` with whatever else the network holds, as constants: its cost stays exact, and nothing goes unreported.

    These are parameters of modules without a rule, and macs that torch's counter saw and the layers do not explain
    (a matrix product between activations, say).
    """
    known = {layer.name: layer for layer in space.layers}
    called = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    layers, frozen = list(space.layers), list(space.frozen)
    for path, module in network.named_modules():
        own = module.named_parameters(prefix=path, recurse=False)
        count = sum(parameter.numel() for name, parameter in own if name not in known)
        if path in known:
            count = _unexplained(module, known[path], space.base)
        if not count:
            continue
        label = path or "the network's own parameters"
        label = f"{label} (other parameters)" if path in known else label
        layers.append(_leftover(label, params=count))
        used = not path or any(f"{path}.".startswith(f"{one}.") or one.startswith(f"{path}.") for one in called)
        reason = f"{type(module).__name__} has no rule" if used else "the forward pass in eval mode does not use it"
        frozen.append(Frozen(label, f"{reason}. Its parameters keep their shapes and values"))
    macs = graph.macs - space.cost(space.base).macs
    if macs > 0:
        layers.append(_leftover("other operations", macs=macs))
        frozen.append(Frozen("other operations", f"{macs} macs are not in layers with a rule and count as constant"))
    return replace(space, layers=tuple(layers), frozen=tuple(frozen))


def _unexplained(module: nn.Module, layer: Layer, base: Mapping[str, int]) -> int:
    """Numbers of a layer's own parameters that are neither its weight nor one for each channel."""
    inputs, outputs = size(layer.inputs, base), size(layer.outputs, base)
    explained = layer.kernel * inputs * outputs // layer.groups + layer.vectors * outputs
    return sum(value.numel() for value in module.parameters(recurse=False)) - explained


def _tie_asked(channels: Channels, settings: SpaceSettings, name: str) -> None:
    for group in settings.tie:
        slots = {channels.sources(root)[0]: root for root in channels.roots() if channels.reason(root) is None}
        for slot in group:
            if slot not in slots:
                raise unknown(f"slot of {name} in tie", slot, slots)
        widths = {channels.width(slots[slot]) for slot in group}
        if len(widths) > 1:
            raise UsageError(
                f"slots that are tied must have one width in the base, and {', '.join(group)} have {widths}"
            )
        for slot in group[1:]:
            channels.unify((Part(slots[group[0]], 1),), (Part(slots[slot], 1),), "the settings tie them")


def _freeze_asked(channels: Channels, settings: SpaceSettings, name: str, doubts: Mapping[str, str]) -> None:
    slots = {channels.sources(root)[0]: root for root in channels.roots() if channels.reason(root) is None}
    for slot in (*settings.freeze, *settings.slots):
        if slot not in slots and slot not in doubts:
            raise unknown(f"slot of {name}", slot, slots)
    for slot in slots.keys() & set(settings.freeze):
        channels.freeze((Part(slots[slot], 1),), "the settings ask for it")
    if not set(slots) - set(settings.freeze):
        why = ". ".join(f"{item.dimension}: {item.reason}" for item in _frozen(channels)[:3])
        raise UsageError(f"{name} has no free width ({why or 'it has no convolution or linear layer'})")


def _slot(channels: Channels, root: int, position: Position, settings: SpaceSettings) -> Slot:
    sources, base, least = channels.sources(root), channels.width(root), channels.multiple(root)
    own = settings.slots.get(sources[0], SlotSettings())
    multiple = settings.multiple if own.multiple is None else own.multiple
    ceiling = base if own.ceiling is None else own.ceiling
    floor = own.floor or settings.floor or DEFAULT_FLOOR
    if own.multiple is None and (multiple % least or base % multiple):
        multiple = least  # a network-wide multiple holds where it can
    floor = min(-(-floor // multiple) * multiple, ceiling)
    if multiple % least or base % multiple or ceiling % multiple or ceiling < base:
        raise UsageError(
            f"settings of slot {sources[0]!r}: multiple must be a multiple of {least} that divides the base's width "
            f"{base}, and ceiling a multiple of it from {base} up. Got multiple {multiple}, ceiling {ceiling}"
        )
    return Slot(
        sources[0],
        position.stage,
        position.depth,
        ceiling,
        floor,
        multiple,
        sources,
        channels.shuffled(root),
        channels.groups(root),
    )


def _layers(reading: Reading, names: Mapping[int, str]) -> tuple[Layer, ...]:
    extent = reading.channels.extent
    return tuple(
        Layer(
            name=one.name,
            kind=one.kind,
            inputs=extent(one.inputs, names),
            outputs=extent(one.outputs, names),
            kernel=one.kernel,
            positions=one.positions,
            groups=one.groups,
            vectors=one.vectors,
        )
        for one in reading.records.values()
    )


def _frozen(channels: Channels) -> tuple[Frozen, ...]:
    reasons = ((channels.sources(root)[0], channels.reason(root)) for root in channels.roots())
    return tuple(Frozen(source, reason) for source, reason in reasons if reason is not None)


def _leftover(name: str, *, macs: int = 0, params: int = 0) -> Layer:
    # One weight applied `macs` times would be one parameter too many: `vectors` takes it back.
    weight = int(macs > 0)
    return Layer(name, LEFTOVER, constant(weight), constant(1), weight, macs, vectors=params - weight)
