"""Several processes that train one network together, as `torchrun` starts them: each takes its share of every batch.

Gradients are averaged by DistributedDataParallel. BatchNorm's statistics are those of the whole batch, so that a
network trained by two processes is the one that a single process would have trained, to rounding.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from prune_nas.errors import UsageError

_WAIT = timedelta(days=7)  # the others wait while the first one draws, measures latencies or is asked for more


class Team(NamedTuple):
    """The processes of one training, and which of them this is; alone 0 of 1."""

    rank: int
    size: int


ALONE = Team(0, 1)


def team() -> Team:
    """The team that this process is in, once it has joined."""
    return Team(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else ALONE


def join() -> Team:
    """Join the others, if `torchrun` started this process; its GPU becomes the default one, if there are GPUs."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or not dist.is_available():
        return ALONE
    if not dist.is_initialized():
        gpus = torch.cuda.is_available()
        if gpus:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=_WAIT)
    return team()


def send(value: Any) -> None:
    """Tell all others a value, as JSON; only the first does so."""
    content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    dist.broadcast(torch.tensor([len(content)]), src=0)
    dist.broadcast(content, src=0)


def receive() -> Any:
    """The value that the first tells next; waits for it."""
    length = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(length, src=0)
    content = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(content, src=0)
    return json.loads(bytes(content.tolist()))


def total(value: Tensor) -> Tensor:
    """The sum over the team."""
    if team().size > 1:
        dist.all_reduce(value)
    return value


@contextmanager
def together(network: nn.Module) -> Iterator[nn.Module]:
    """What to run forward while `network` is trained: itself, or a wrapper that makes the team train as one."""
    if team().size == 1:
        yield network
        return
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    forwards = [_forward(norm) for norm in norms]
    for norm, forward in zip(norms, forwards, strict=True):
        norm.forward = forward  # type: ignore[method-assign,assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the name that replaces broadcast_buffers came with 2.14
            wrapper = DistributedDataParallel(
                network,
                broadcast_buffers=False,
                static_graph=True,  # so that a parameter may be without use
            )
        yield wrapper
    finally:
        for norm in norms:
            del norm.forward


def _forward(norm: _BatchNorm) -> Callable[[Tensor], Tensor]:
    """What the module does, with the statistics of the whole batch.

    Raises:
        UsageError: it does something of its own that is not known here.
    """
    if type(norm).forward is _BatchNorm.forward:
        return partial(_whole_batch, norm)
    parts: Any = norm
    if any(kind.__name__ == "BatchNormAct2d" for kind in type(norm).__mro__):  # timm's, with its activation
        return lambda x: parts.act(parts.drop(_whole_batch(norm, x)))
    raise UsageError(f"{type(norm).__name__} replaces `forward`. Train this network in one process")


def _whole_batch(norm: _BatchNorm, x: Tensor) -> Tensor:
    """BatchNorm whose mean and variance are those of all shares of the batch.

    nn.SyncBatchNorm does the same, but refuses to work on CPUs.
    """
    if not norm.training:
        return _BatchNorm.forward(norm, x)
    dims = [0, *range(2, x.dim())]
    shape = [1, -1, *([1] * (x.dim() - 2))]
    wide = x.float()
    count = _Sum.apply(wide.new_tensor([wide.numel() / wide.shape[1]]))
    mean = _Sum.apply(wide.sum(dims)) / count
    centred = wide - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(dims)) / count
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * count / (count - 1), share)
    normal = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        normal = normal * norm.weight.view(shape) + norm.bias.view(shape)
    result: Tensor = normal.to(x.dtype)
    return result


class _Sum(torch.autograd.Function):
    """The sum over the team; what depends on it depends on everybody's share."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad
