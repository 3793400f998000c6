import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from prune_nas.errors import UsageError
from prune_nas.training import convolution, loop
from prune_nas.training.loop import DivergedError, OutOfMemoryError, accuracy, fit, train
from prune_nas.training.precision import Precision
from prune_nas.training.recipe import Recipe, recipe

QUICK = Recipe("quick", 4, 0.05, "one-cycle", batch=8, weight_decay=1e-4, nesterov=True, label_smoothing=0.1)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


def state(net):
    return torch.cat([p.flatten() for p in net.state_dict().values()])


def test_it_learns_and_reports_every_epoch(setting):
    epochs = list(fit(network(), setting, QUICK, seed=0))
    assert [e.number for e in epochs] == [1, 2, 3, 4]
    assert epochs[-1].val_accuracy == 1.0
    assert epochs[-1].train_loss < epochs[0].train_loss


def test_one_step_is_the_textbook_update(setting):
    """SGD with Nesterov momentum and weight decay, written out for the first step."""
    plain = replace(QUICK, epochs=1, batch=32, policy="constant", label_smoothing=0.0)
    ours, reference = network().requires_grad_(True), network()
    ours[3].p = reference[3].p = 0.0
    x, y = next(
        setting.data.train.batches(
            32, generator=torch.Generator().manual_seed(1), augmentation=setting.data.augmentation
        )
    )
    loss = nn.functional.cross_entropy(reference(x), y)
    loss.backward()
    with torch.no_grad():
        for p in reference.parameters():
            g = p.grad + 1e-4 * p
            p.sub_(0.05 * (g + 0.9 * g))
    list(fit(ours, setting, plain, seed=0))
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_whatever_the_global_generator_does(setting):
    torch.manual_seed(1)
    first = network()
    list(fit(first, setting, QUICK, seed=5))
    second = network()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    list(fit(second, setting, QUICK, seed=5))
    assert torch.equal(state(first), state(second))
    assert torch.equal(before, torch.get_rng_state())
    other = network()
    list(fit(other, setting, QUICK, seed=6))
    assert not torch.equal(state(first), state(other))


@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "both"])
def test_an_interrupted_training_continues_as_it_would_have(setting, tmp_path, stop, optimizer):
    plan = QUICK.using("adamw").penalised() if optimizer == "both" else QUICK.using(optimizer)
    whole = network()
    expected = list(fit(whole, setting, plan, seed=0))
    checkpoint = tmp_path / "c.safetensors"
    running = fit(network(), setting, plan, seed=0, checkpoint=checkpoint)
    for _ in range(stop):
        next(running)
    running.close()
    resumed = network(seed=7)
    epochs = list(fit(resumed, setting, plan, seed=0, checkpoint=checkpoint))
    assert torch.equal(state(whole), state(resumed))
    assert [(e.number, e.train_loss, e.val_accuracy) for e in epochs] == [
        (e.number, e.train_loss, e.val_accuracy) for e in expected
    ]


@pytest.mark.parametrize("damage", ["foreign", "torn", "empty"])
def test_a_checkpoint_that_is_not_this_trainings_counts_as_none(setting, tmp_path, damage):
    checkpoint = tmp_path / "c.safetensors"
    next(fit(network(), setting, QUICK, seed=0 if damage != "foreign" else 9, checkpoint=checkpoint))
    content = checkpoint.read_bytes()
    checkpoint.write_bytes({"foreign": content, "torn": content[: len(content) // 2], "empty": b""}[damage])
    clean, resumed = network(), network()
    list(fit(clean, setting, QUICK, seed=0))
    list(fit(resumed, setting, QUICK, seed=0, checkpoint=checkpoint))
    assert torch.equal(state(clean), state(resumed))


def test_a_checkpoint_of_other_widths_leaves_the_network_untouched(setting, tmp_path):
    checkpoint = tmp_path / "c.safetensors"
    wide = nn.Sequential(*network()[:6], nn.Linear(6, 3))
    next(fit(wide, setting, QUICK, seed=0, checkpoint=checkpoint))
    clean, resumed = network(), network()
    list(fit(clean, setting, QUICK, seed=0))
    list(fit(resumed, setting, QUICK, seed=0, checkpoint=checkpoint))
    assert torch.equal(state(clean), state(resumed))


def test_a_parameter_without_a_gradient_is_resumed_too(setting, tmp_path):
    def with_idle():
        net = network()
        net.register_parameter("idle", nn.Parameter(torch.ones(3)))
        return net

    checkpoint, whole, resumed = tmp_path / "c.safetensors", with_idle(), with_idle()
    list(fit(whole, setting, QUICK, seed=0))
    next(fit(with_idle(), setting, QUICK, seed=0, checkpoint=checkpoint))
    list(fit(resumed, setting, QUICK, seed=0, checkpoint=checkpoint))
    assert torch.equal(state(whole), state(resumed))


def test_a_penalty_moves_weights_and_is_seen_by_the_optimiser(setting):
    def shrink(net, lr):
        net[1].weight.grad.add_(10.0)

    free, bound = network(), network()
    list(fit(free, setting, QUICK, seed=0))
    list(fit(bound, setting, QUICK, seed=0, penalty=shrink))
    assert (bound[1].weight < free[1].weight).all()


def test_divergence_is_an_error_that_says_what_to_do(setting):
    with pytest.raises(DivergedError, match="--lr"):
        list(fit(network(), setting, replace(QUICK, lr=1e30), seed=0))


def test_out_of_memory_halves_the_batch_once(setting, monkeypatch):
    tried = []

    def scarce(net, setting, recipe, **_):
        tried.append((recipe.batch, recipe.lr))
        if recipe.batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield loop.Epoch(1, 0.1, 1.0, 0.1)

    monkeypatch.setattr(loop, "fit", scarce)
    train(network, setting, QUICK, seed=0)
    assert tried == [(8, 0.05), (4, 0.025)]
    with pytest.raises(OutOfMemoryError, match="batch 32 and at 16"):
        train(network, setting, replace(QUICK, batch=32), seed=0)


def test_other_runtime_errors_are_not_mistaken_for_it(setting, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes cannot be multiplied")
        yield

    monkeypatch.setattr(loop, "fit", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        train(network, setting, QUICK, seed=0)


def test_accuracy_is_counted_in_evaluation_mode(setting):
    net = network()
    list(fit(net, setting, QUICK, seed=0))
    net.eval()
    right = sum((net(x).argmax(1) == y).sum().item() for x, y in setting.data.val.batches(5))
    assert accuracy(net, setting.data.val, setting) == right / 16
    assert net.training


def test_the_papers_recipe_is_the_papers():
    paper = recipe("paper")
    assert (paper.epochs, paper.lr, paper.batch, paper.weight_decay) == (160, 0.1, 64, 1e-4)
    assert (paper.momentum, paper.nesterov, paper.label_smoothing) == (0.9, False, 0.0)
    assert [round(paper.lr_at(e / 160), 6) for e in (0, 79, 80, 119, 120, 159)] == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]


def test_travel_is_the_sum_of_the_steps():
    constant = Recipe("c", 2, 0.1, "constant", batch=10, weight_decay=0, nesterov=False, momentum=0.5)
    assert constant.travel(100) == pytest.approx(20 * 0.1 / 0.5)


def test_an_optimiser_brings_its_own_rate_and_decay():
    fast = recipe("fast")
    adamw = fast.using("adamw")
    assert (adamw.optimizer, adamw.lr, adamw.weight_decay, adamw.epochs) == ("adamw", 2e-3, 0.05, fast.epochs)
    assert fast.using("sgd") is fast
    assert adamw.path(640) == pytest.approx(sum(adamw.lr_at(i / 200) for i in range(200)))
    with pytest.raises(UsageError, match="Did you mean adamw"):
        fast.using("adam")


def test_steps_count_whole_batches():
    assert replace(QUICK, epochs=3, batch=10).steps(35) == 9
    assert replace(QUICK, epochs=3, batch=100).steps(35) == 3


def test_one_cycle_rises_and_falls():
    fast = recipe("fast")
    rates = [fast.lr_at(i / 100) for i in range(100)]
    assert max(rates) == pytest.approx(fast.lr)
    assert rates.index(max(rates)) == 25
    assert rates[-1] < 0.001 * fast.lr * 10


def test_checkpoints_hold_no_code(setting, tmp_path):
    checkpoint = tmp_path / "c.safetensors"
    next(fit(network(), setting, QUICK, seed=0, checkpoint=checkpoint))
    header = checkpoint.read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert "meta" in json.loads(header[8 : 8 + length])["__metadata__"]


def test_training_spares_slow_imports():
    code = (
        "import sys\nimport prune_nas as pn\n"
        "data = pn.load_data('digits', seed=0, train_size=100, val_size=50)\n"
        "net = pn.trace('vgg11', input_shape=data.input_shape, classes=10, base_width=0.0625)\n"
        "pn.train_widths(net, pn.uniform(net, 'macs=0.4'), data, epochs=1, precision='fp32')\n"
        "slow = {'torch._dynamo', 'torch.utils.benchmark', 'torchvision', 'sympy', 'matplotlib'}\n"
        "print(slow & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_evaluation_multiplies_matrices_too(setting, monkeypatch):
    taken = []
    real = convolution.convolved
    monkeypatch.setattr(convolution, "has_amx", lambda: True)
    monkeypatch.setattr(convolution, "convolved", lambda *given: taken.append(1) or real(*given))
    net = nn.Sequential(
        nn.Conv2d(3, 96, 1, stride=4), nn.Conv2d(96, 96, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    accuracy(net, setting.data.val, replace(setting, precision=Precision("bf16")))
    assert len(taken) == 1


def test_an_interrupted_fp16_training_goes_on_with_the_scale_it_had(setting, tmp_path, monkeypatch):
    half, checkpoint = replace(setting, precision=Precision("fp16")), tmp_path / "c.safetensors"
    real, scales = loop._epoch, []

    def noted(runs, setting, recipe, updates, *rest):
        scales.append(updates.scaler.get_scale())
        loss = real(runs, setting, recipe, updates, *rest)
        if len(scales) == 1:
            updates.scaler.update(1024.0)  # as if it had overflowed
        return loss

    monkeypatch.setattr(loop, "_epoch", noted)
    running = fit(network(), half, QUICK, seed=0, checkpoint=checkpoint)
    next(running)
    running.close()
    list(fit(network(), half, QUICK, seed=0, checkpoint=checkpoint))
    assert scales[:2] == [65536.0, 1024.0]


def test_a_first_step_that_overflows_leaves_no_momentum(setting, monkeypatch):
    """torch's fused SGD makes a momentum of unset memory in a step that is skipped."""
    net, half, calls = network(), replace(setting, precision=Precision("fp16")), []
    filled = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *args, **named: filled(*args, **named).fill_(float("nan")))

    def overflow(gradient):
        calls.append(1)
        return torch.full_like(gradient, float("inf")) if len(calls) == 1 else gradient

    net[0].weight.register_hook(overflow)
    list(fit(net, half, QUICK, seed=0))
    assert all(value.isfinite().all() for value in net.state_dict().values())
