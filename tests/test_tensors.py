import torch
from safetensors.torch import load, save

from prune_nas.tensors import on_host


def test_tensors_that_share_memory_are_saved_apart():
    one = torch.arange(6.0)
    state = on_host({"a": one, "b": one, "view": one.view(2, 3).T})
    again = load(save(state))
    assert all(
        torch.equal(again[name], value) for name, value in {"a": one, "b": one, "view": one.view(2, 3).T}.items()
    )
