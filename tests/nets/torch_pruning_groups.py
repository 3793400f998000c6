"""The groups of channels that torch-pruning sees in a network, as JSON, from a process whose memory is bounded.

python -m tests.nets.torch_pruning_groups NAME CHANNELS,HEIGHT,WIDTH CLASSES
"""

import json
import resource
import subprocess
import sys

import torch
from torch import nn

from prune_nas.nets.tracing import trace

_MEMORY = 8 << 30  # bytes
_SECONDS = 120
_PRODUCERS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.ConvTranspose2d)


def groups(network: nn.Module, shape: tuple[int, ...]) -> set[frozenset[str]]:
    """Each group as the names of the layers whose outputs it holds, depthwise convolutions left out."""
    import torch_pruning as tp

    graph = tp.DependencyGraph().build_dependency(network.eval(), torch.randn(1, *shape))
    names = {module: name for name, module in network.named_modules()}
    found = (
        frozenset(
            names[dep.target.module]
            for dep, _ in group
            if graph.is_out_channel_pruning_fn(dep.handler) and produces(dep.target.module)
        )
        for group in graph.get_all_groups(root_module_types=list(_PRODUCERS))
    )
    return {group for group in found if group}


def produces(module: nn.Module) -> bool:
    """Whether a layer chooses its own output width."""
    depthwise = getattr(module, "groups", 1) == getattr(module, "in_channels", 0) > 1
    return isinstance(module, _PRODUCERS) and not depthwise


def asked(name: str, shape: tuple[int, ...], classes: int) -> set[frozenset[str]] | str:
    """The groups, found in a process of its own, or how it failed."""
    command = [sys.executable, "-m", __name__, name, ",".join(map(str, shape)), str(classes)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"fails: not done after {_SECONDS} s"
    if done.returncode:
        error = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].partition(":")[0]
        return f"fails: {error}"
    return {frozenset(group) for group in json.loads(done.stdout)}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    name, shape, classes = sys.argv[1], tuple(map(int, sys.argv[2].split(","))), int(sys.argv[3])
    found = groups(trace(name, input_shape=shape, classes=classes).build(seed=0), shape)
    sys.stdout.write(json.dumps([sorted(group) for group in found]))
