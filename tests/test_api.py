"""The package's own names, as a notebook uses them; numbers against the command line and the parts."""

import subprocess
import sys

import pytest

import prune_nas as pn
from prune_nas.errors import BudgetError, UsageError
from tests.search.tiny import LEARNT, SETTINGS

TINY = {"train_size": 200, "val_size": 100, "image_size": 16}


@pytest.fixture(scope="module")
def network():
    return pn.trace("vgg11", input_shape=(3, 16, 16), classes=10, base_width=0.125)


@pytest.fixture(scope="module")
def data():
    return pn.load_data("digits", seed=0, **TINY)


def test_every_name_is_there():
    assert sorted(pn.__all__) == pn.__all__
    assert all(hasattr(pn, name) for name in pn.__all__)
    assert set(pn.__all__) <= set(dir(pn))
    with pytest.raises(AttributeError, match="nothing"):
        pn.nothing  # noqa: B018


def test_the_package_alone_imports_nothing():
    code = "import sys, prune_nas; assert not {'torch', 'pandas', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_from_a_supernet_to_another_network_s_net(network, data):
    seen = []
    scores = pn.train_supernet(network, data, epochs=3, precision="fp32", on_epoch=lambda *said: seen.append(said))
    assert [(what, epoch.number) for what, epoch in seen] == [("supernet", 1), ("supernet", 2), ("supernet", 3)]
    assert {name: len(values) for name, values in scores.items()} == {s.name: s.ceiling for s in network.space.slots}
    pruned = pn.select(network, scores, "macs=0.4")
    base = network.space.cost(network.space.base).macs
    assert 0.3 * base < network.space.cost(pruned).macs <= 0.4 * base
    rule = pn.fit_rule("stage-mean", [(network, pruned)])
    assert "of stage 1" in rule.explain()
    other = pn.trace("vgg13", input_shape=(3, 16, 16), classes=10, base_width=0.125)
    widths = pn.apply_rule(rule, other, pn.Budget.parse("macs=0.4"))
    assert sum(p.numel() for p in other.build(widths, seed=0).parameters()) == other.space.cost(widths).params


def test_the_shapes_that_need_no_search(network):
    base = network.space.cost(network.space.base).macs
    for widths in (pn.uniform(network, "macs=0.4"), pn.taper(network, "macs=0.4")):
        assert 0.35 * base < network.space.cost(widths).macs <= 0.4 * base
    keep = network.space.keep(pn.taper(network, "macs=0.4"))
    assert keep["conv1_1"] > keep["conv3_1"] > keep["conv5_2"]


def test_a_study_never_leaves_the_budget_and_repeats_itself(network, data):
    prior = pn.uniform(network, "macs=0.4")
    first, second = (
        pn.study(network, data, "macs=0.4", prior=prior, trials=4, epochs=1, precision="fp32", sampler="random")
        for _ in range(2)
    )
    assert first.trials.equals(second.trials)
    assert (first.trials["macs"] <= 0.4 * network.space.cost(network.space.base).macs).all()
    assert len(first.trials) == first.trials["widths"].nunique() == 4
    assert first.best == first.trials.loc[first.trials["value"].idxmax(), "widths"]
    with pytest.raises(BudgetError):
        pn.study(network, data, "macs=0.00001", prior=prior)
    with pytest.raises(UsageError, match="sampler"):
        pn.study(network, data, "macs=0.4", prior=prior, sampler="tpee")
    with pytest.raises(UsageError, match="at least one"):
        pn.study(network, data, "macs=0.4", prior=prior, trials=0)


def test_a_supernet_is_trained_by_the_optimizer_that_is_asked_for(network, data):
    found = {
        name: pn.train_supernet(network, data, epochs=2, precision="fp32", optimizer=name) for name in ("sgd", "adamw")
    }
    first = network.space.slots[0].name
    assert found["sgd"][first].tolist() != found["adamw"][first].tolist()
    with pytest.raises(UsageError, match="Did you mean adamw"):
        pn.train_supernet(network, data, epochs=2, precision="fp32", optimizer="adam")


def test_what_does_not_belong_together_is_refused_before_it_trains(network, data):
    other = pn.trace("vgg11", input_shape=(3, 32, 32), classes=5, base_width=0.125)
    with pytest.raises(UsageError, match=r"traced for \(3, 32, 32\) images in 5 classes"):
        pn.train_supernet(other, data)
    for widths in (pn.Widths({"x": 4}), pn.Widths({name: 10 * n for name, n in network.space.base.items()})):
        with pytest.raises(UsageError, match="widths do not fit vgg11"):
            pn.train_widths(network, widths, data)
        with pytest.raises(UsageError, match="widths do not fit vgg11"):
            pn.study(network, data, "macs=0.4", prior=widths)


def test_widths_are_trained_from_scratch_for_equal_epochs_or_equal_compute(network, data):
    widths = pn.uniform(network, "macs=0.4")
    short = pn.train_widths(network, widths, data, epochs=2, seeds=(0, 1), precision="fp32")
    assert short.table["epochs"].tolist() == [2, 2]
    assert len(short.networks) == 2
    long = pn.train_widths(network, widths, data, epochs=2, schedule="scratch-b", precision="fp32")
    space = network.space
    assert long.table["epochs"].item() == 2 * space.cost(space.base).macs // space.cost(widths).macs
    right = sum((long.networks[0](x).argmax(1) == y).sum().item() for x, y in data.open_test().batches(100))
    assert long.table["test_accuracy"].item() == pytest.approx(right / len(data.open_test()))
    with pytest.raises(UsageError, match="scratch-e or scratch-b"):
        pn.train_widths(network, widths, data, schedule="scratch-c")


def test_the_whole_job_is_the_command_s(searched, tmp_path):
    settings = {name.replace("-", "_"): value for name, value in {**SETTINGS, **LEARNT}.items()}
    run = pn.run_search(tmp_path / "run", quiet=True, **settings, arms="found,uniform,inherited")
    assert (tmp_path / "run" / "trials.csv").read_text() != ""
    there = pn.read_run(searched)
    columns = ["arm", "schedule", "test_accuracy"]
    assert run.results[columns].equals(there.results[columns])


def test_a_published_rule_and_a_rule_of_a_run_are_loaded(network, searched):
    rule = pn.load_rule("vgg16-cifar10-params")
    widths = pn.apply_rule(rule, network, "params=0.3")
    space = network.space
    assert space.cost(widths).params <= 0.3 * space.cost(space.base).params
    of_run, of_file = pn.load_rule(searched), pn.load_rule(searched / "rule.json")
    assert of_run.explain() == of_file.explain() != rule.explain()
    with pytest.raises(UsageError, match=r"is a network, not a rule\. Give its run directory"):
        pn.load_rule(searched / "deploy.json")
