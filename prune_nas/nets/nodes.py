"""What tracing noted of each operation (`graph` writes it): shapes, lines, and what Python code asked of it."""

from __future__ import annotations

from torch import fx

BATCH = 2  # with 1, a batch would look like a dimension that broadcasts


def shape(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of the tensor that `node` gives, None if it gives anything but one tensor."""
    found: tuple[int, ...] | None = node.meta.get("shape")
    return found


def shapes(node: fx.Node) -> tuple[tuple[int, ...], ...] | None:
    """The shapes of the tensors that `node` gives as a tuple or list; None if it gives anything else."""
    found: tuple[tuple[int, ...], ...] | None = node.meta.get("shapes")
    return found


def place(node: fx.Node) -> str:
    """The node's name and, where it was written outside torch, its source line, as in `add_3 (resnet.py:40)`."""
    line = node.meta.get("line")
    return f"{node.name} ({line})" if line else node.name


def asked(node: fx.Node) -> str | None:
    """Where Python code took the node's value as a plain number or truth, as in `resnet.py:40`; None if nowhere."""
    found: str | None = node.meta.get("asked")
    return found


def of_batch(node: fx.Node) -> bool:
    """Whether the operation depends on an input, so that it is done anew for each example."""
    return bool(node.meta.get("of_batch"))
