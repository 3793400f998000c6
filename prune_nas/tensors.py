"""Tensors as a file of safetensors takes them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def on_host(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, each in memory of its own.

    A module with two names has every tensor twice in its state, in one place of memory, which the format does not take.
    """
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in state.items():
        own = value.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        found[name] = own.clone() if place in taken else own
        taken.add(place)
    return found
