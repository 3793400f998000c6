from prune_nas.design.arms import jobs, widths_of_arms
from prune_nas.design.budget import Budget
from prune_nas.design.patterns import pattern_of
from prune_nas.design.rules import fit
from tests.design.spaces import vgg
from tests.design.test_family import PRIOR
from tests.design.test_space import named


def arms_for(text, wanted=()):
    space = vgg(16).scaled(0.5)
    limits = Budget.parse(text).limits(space)
    pruned = named(space, PRIOR)
    rule = fit("stage-mean", [pattern_of(space, pruned)]).rule
    known = {"found": pruned, "pruned": pruned}
    return space, limits, widths_of_arms(space, limits, known, rule=rule, randoms=3, seed=0, wanted=wanted)


def test_every_arm_is_within_the_budget_unless_another_cost_was_asked_for():
    space, limits, arms = arms_for("macs=0.2")
    assert all(limits.admits(space.cost(w)) for name in ("uniform", "taper", "random") for w in arms[name])
    assert space.cost(arms["uniform"][0]).macs > 0.99 * limits.bounds[0][1]
    assert not any("@" in arm for arm in arms)
    space, _, arms = arms_for("macs=0.2", wanted=("uniform@macs", "uniform@params"))
    found = space.cost(arms["found"][0])
    assert 0.95 * found.macs <= space.cost(arms["uniform@macs"][0]).macs <= found.macs
    assert 0.95 * found.params <= space.cost(arms["uniform@params"][0]).params <= found.params


def test_a_joint_budget_has_one_uniform_and_every_arm_fits():
    space, limits, arms = arms_for("macs=0.2,params=0.1")
    for arm in ("uniform", "taper", "guided", "random"):
        assert all(limits.admits(space.cost(w)) for w in arms[arm])
    assert len(set(arms["random"])) == 3


def test_jobs_are_whole_comparisons_seed_by_seed():
    space, _, arms = arms_for("macs=0.2")
    owed = jobs(space, {"macs=0.2": arms}, wanted=("found", "uniform", "taper", "inherited", "base"),
                schedules=("scratch-e", "scratch-b"), seeds=(7, 8), epochs=10)  # fmt: skip
    assert [job.seed for job in owed] == sorted(job.seed for job in owed)
    first = [(job.arm, job.schedule) for job in owed if job.seed == 7]
    assert first == [
        ("base", "scratch-e"),
        ("found", "scratch-e"),
        ("found", "scratch-b"),
        ("uniform", "scratch-e"),
        ("uniform", "scratch-b"),
        ("taper", "scratch-e"),
        ("taper", "scratch-b"),
        ("inherited", "rewind"),
    ]
    longer = {job.epochs for job in owed if job.schedule == "scratch-b"}
    base = space.cost(space.base).macs
    assert longer == {10 * base // space.cost(arms[a][0]).macs for a in ("found", "uniform", "taper")}
    assert len({job.key for job in owed}) == len(owed)
