"""The optimisers are torch's own, and their state survives a checkpoint."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from prune_nas.training import loop, optimiser
from prune_nas.training.convolution import quick_convolutions
from prune_nas.training.recipe import Recipe

QUICK = Recipe("quick", 4, 0.05, "one-cycle", batch=8, weight_decay=1e-2, nesterov=True)


def the_only(*args, **options):
    """The optimiser of a recipe that has one."""
    (made,) = optimiser.optimisers_of(*args, **options)
    return made


def steps(make, *, layer=None, count=3):
    torch.manual_seed(0)
    network = layer or nn.Linear(4, 3)
    made = make(network)
    for _ in range(count):
        made.zero_grad(set_to_none=True)
        network(torch.ones(2, 4)).square().sum().backward()
        made.step()
    assert all(not p.grad_fn for p in network.parameters())
    return network.weight.detach()


def test_sgd_is_torchs():
    plain = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2, "nesterov": True}
    ours = steps(lambda net: the_only(net, QUICK, fused=True))
    assert torch.equal(ours, steps(lambda net: torch.optim.SGD(net.parameters(), **plain, fused=True)))


def test_adamw_is_torchs_and_decays_weights_alone():
    plan = QUICK.using("adamw")

    def reference(net):
        groups = [{"params": [net.weight]}, {"params": [net.bias], "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=2e-3, weight_decay=0.05, fused=True)

    ours = steps(lambda net: the_only(net, plan, fused=True))
    assert torch.equal(ours, steps(reference))
    made = the_only(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), plan, fused=False)
    assert [(group["weight_decay"], len(group["params"])) for group in made.param_groups] == [(0.05, 1), (0.0, 3)]


def test_under_a_penalty_sgd_updates_what_is_batchnorms_and_adamw_the_rest():
    plan = replace(QUICK.using("adamw").penalised(), gamma_lr=0.1)

    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.LayerNorm(3))

    ours, theirs = make(), make()
    made = optimiser.optimisers_of(ours, plan, fused=True)
    expected = [
        torch.optim.AdamW(theirs[0].parameters(), fused=True),
        torch.optim.AdamW(theirs[2].parameters(), fused=True),
        torch.optim.SGD(theirs[1].parameters(), momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True),
    ]
    expected[0].param_groups[0]["weight_decay"] = 0.05
    expected[0].add_param_group({"params": [expected[0].param_groups[0]["params"].pop()], "weight_decay": 0.0})
    expected[1].param_groups[0]["weight_decay"] = 0.0
    x = torch.randn(8, 4)
    for lr in (2e-3, 1e-3, 5e-4):
        optimiser.set_rate(made, lr)
        for other, rate in zip(expected, (lr, lr, 50 * lr), strict=True):  # 0.1 / 0.002
            for group in other.param_groups:
                group["lr"] = rate
        for network, optimisers in ((ours, made), (theirs, expected)):
            for one in optimisers:
                one.zero_grad()
            network(x).pow(4).sum().backward()
            for one in optimisers:
                one.step()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name
    assert plan.gamma_share == 50
    assert (plan.halved().gamma_lr, plan.tuning().gamma_lr) == (0.05, 0.001)
    assert QUICK.penalised() == QUICK


def test_a_parameter_that_does_not_learn_is_left_out():
    layer = nn.Linear(4, 3)
    layer.bias.requires_grad_(False)
    for name in ("sgd", "adamw"):
        made = the_only(layer, QUICK.using(name), fused=False)
        assert [p is layer.weight for group in made.param_groups for p in group["params"]] == [True]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("bf16", [False, True])
def test_fused_steps_are_those_of_plain_ones(bf16, name):
    """torch's fused SGD on a CPU mistakes weights for one another where gradients have another memory layout."""
    trained = []
    for fused in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(8, 96, 3), nn.Conv2d(96, 96, 3, padding=1))
        loop.place(net, torch.device("cpu"))
        made = the_only(net, QUICK.using(name), fused=fused)
        with quick_convolutions(net, torch.device("cpu"), torch.bfloat16 if bf16 else torch.float32):
            for _ in range(3):
                made.zero_grad(set_to_none=True)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                    loss = net(torch.randn(2, 8, 5, 5)).square().mean()
                loss.backward()
                made.step()
        trained.append(net[1].weight.detach())
    torch.testing.assert_close(*trained)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_state_that_is_put_back_is_the_same(name):
    plan, networks = QUICK.using(name), [nn.Linear(4, 3), nn.Linear(4, 3)]
    networks[1].load_state_dict(networks[0].state_dict())
    first, second = (the_only(net, plan, fused=False) for net in networks)
    steps(lambda net: first, layer=networks[0])
    networks[1].load_state_dict(networks[0].state_dict())
    optimiser.restore([second], optimiser.state_of([first]))
    assert torch.equal(steps(lambda net: first, layer=networks[0]), steps(lambda net: second, layer=networks[1]))


def test_a_fused_optimiser_has_all_of_its_state_where_its_parameters_are():
    """A fused kernel reads the count of steps from the device; a checkpoint gives it back on the host."""
    plan = QUICK.using("adamw")
    network = nn.Linear(4, 3)
    made = the_only(network, plan, fused=True)
    network(torch.ones(2, 4)).sum().backward()
    made.step()
    there = the_only(nn.Linear(4, 3).to("meta"), plan, fused=False)
    for group in there.param_groups:
        group["fused"] = True
    optimiser.restore([there], optimiser.state_of([made]))
    values = [value for state in there.state.values() for value in state.values()]
    assert len(values) == 6
    assert {value.device.type for value in values} == {"meta"}
