"""Spaces built by hand, and hypothesis strategies for random ones: no network is read here."""

from dataclasses import replace

from hypothesis import strategies as st

from prune_nas.design.parts import Layer, Segment, Slot, constant
from prune_nas.design.space import Space, Widths

VGG = {
    16: (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512),
    19: (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512),
}


def chain(plan, *, classes=10, floor=4, multiple=1, side=32):
    """A VGG-like space: 3x3 convolutions with BatchNorm, "M" halves the side, one Linear head."""
    slots, layers, before, stage = [], [], constant(3), 0
    for entry in plan:
        if entry == "M":
            stage, side = stage + 1, side // 2
            continue
        name = f"conv{len(slots) + 1}"
        own = (Segment(name, 1),)
        layers.append(Layer(name, "conv", before, own, kernel=9, positions=side * side))
        layers.append(Layer(f"{name}.norm", "norm", own, own, kernel=0, positions=1, vectors=2))
        slots.append(Slot(name, stage, 0.0, entry, min(floor, entry), multiple, (name,)))
        before = own
    layers.append(Layer("head", "linear", before, constant(classes), kernel=1, positions=1, vectors=1))
    return Space(
        model="chain",
        input_shape=(3, 32, 32),
        classes=classes,
        slots=tuple(replace(slot, depth=depth_of(slot, slots)) for slot in slots),
        layers=tuple(layers),
        frozen=(),
        base=Widths({s.name: s.ceiling for s in slots}),
        stage_names=tuple(str(i + 1) for i in range(stage + 1)),
    )


def depth_of(slot, slots):
    """The place of a slot among those of its stage: 0 for the first, 1 for the last, 0.5 for one alone."""
    own = [other.name for other in slots if other.stage == slot.stage]
    return own.index(slot.name) / (len(own) - 1) if len(own) > 1 else 0.5


def vgg(depth=16, **options):
    return chain(VGG[depth], **options)


@st.composite
def spaces(draw):
    stages = draw(st.lists(st.lists(st.integers(2, 48), min_size=1, max_size=3), min_size=1, max_size=4))
    multiple = draw(st.sampled_from([1, 1, 2, 4]))
    plan = [w * multiple for w in stages[0]]
    for stage in stages[1:]:
        plan += ["M", *(w * multiple for w in stage)]
    return chain(plan, floor=multiple * draw(st.integers(1, 2)), multiple=multiple)


def keeps(space):
    return st.fixed_dictionaries({s.name: st.floats(0.05, 1.0) for s in space.slots})
