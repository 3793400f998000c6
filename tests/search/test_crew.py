"""Several workers: real processes, killed and cut off as they are where people use them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from prune_nas.design.records import Curve, Expense, Final, TrialRow, read_table
from prune_nas.design.space import Widths
from prune_nas.search import crew
from prune_nas.search.crew import Alone, Workers
from prune_nas.search.setup import crew_devices
from prune_nas.search.work import Training
from tests.search.test_resume import outcome, waits_for
from tests.search.tiny import arguments

TWO = {"workers": 2, "threads": 2, "arms": "found,uniform,inherited"}


def children(pid):
    """The processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def searched_by_two(tmp_path_factory):
    run = tmp_path_factory.mktemp("two") / "run"
    command = [sys.executable, "-m", "prune_nas", *arguments(run, **TWO)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return run


def test_two_workers_do_a_whole_search(searched_by_two):
    rows = read_table(searched_by_two / "trials.csv", TrialRow)
    assert {row.worker for row in rows if row.state == "COMPLETE"} == {"1", "2"}
    epochs = Counter((r.budget, r.trial, r.epoch) for r in read_table(searched_by_two / "curves.csv", Curve))
    assert set(epochs.values()) == {1}
    assert list((searched_by_two / "checkpoints").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["study", "finals"])
def test_the_parent_killed_takes_its_workers_along_and_the_search_ends_the_same(tmp_path, searched_by_two, phase):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "prune_nas", *arguments(run, **TWO)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not waits_for(run, phase):
        assert process.poll() is None, f"it ended before it could be killed in {phase}"
        time.sleep(0.02)
    workers = children(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    subprocess.run(command, check=True, capture_output=True)
    assert outcome(run) == outcome(searched_by_two)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_training_goes_on(tmp_path, searched_by_two):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "prune_nas", *arguments(run, **TWO)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not waits_for(run, "study"):
        time.sleep(0.02)
    for worker in children(process.pid):
        os.kill(worker, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert outcome(run) == outcome(searched_by_two)


class Clockwork(Workers):
    """Workers without processes: which of the busy ones ends next is drawn."""

    def __init__(self, count, seed, perform):
        super().__init__(["cpu"] * count, {})
        self.chance, self.perform = random.Random(seed), perform

    def _give(self, name, task):
        self._busy[name] = task

    def _listen(self, on_epoch):
        name = self.chance.choice(sorted(self._busy))
        self._busy[name].result = self.perform(self._busy[name].training)
        self._release(name)


@pytest.mark.parametrize(("workers", "budgets"), [(2, 1), (3, 2)])
def test_what_workers_propose_depends_on_their_number_never_on_which_ends_first(tmp_path, workers, budgets):
    from prune_nas.search import study
    from tests.search.test_study import LIMITS, PRIOR, SPACE, STARTS, history, named, order, score

    prior = named(SPACE, PRIOR)

    def search(journal, seed, perform=score):
        opened = [study.open_study(journal, f"budget {number}", prior) for number in range(budgets)]
        sources = [
            study.Trials(
                one,
                study.trials(one, SPACE, LIMITS, prior, starts=STARTS, seed=number, sampler="tpe"),
                order,
                wanted=12,
                lanes=-(-workers // budgets),
            )
            for number, one in enumerate(opened)
        ]
        Clockwork(workers, seed, perform).run(sources, lambda training, epoch: None)
        return [history(one) for one in opened]

    first = search(tmp_path / "0", 0)
    assert all(search(tmp_path / str(seed), seed) == first for seed in range(1, 4))

    class CutOffError(BaseException):
        pass

    def fragile(training):
        if chance.random() < 0.2:
            raise CutOffError
        return score(training)

    chance = random.Random(0)
    for seed in range(99):
        try:
            again = search(tmp_path / "cut", seed, fragile)
        except CutOffError:
            continue
        break
    assert again == first


def test_a_worker_is_never_idle_where_a_source_has_more():
    class Many:
        def __init__(self):
            self.left = list(range(20))

        def ask(self):
            return self.left.pop(0) if self.left else None

        def tell(self, training, result):
            pass

    class Slow(Clockwork):
        def _listen(self, on_epoch):
            assert len(self._busy) == 2 or not source.left
            self.chance = random.Random(0)
            name = max(self._busy, key=lambda one: self._busy[one].training)  # the first training is the slowest
            self._busy[name].result = self.perform(self._busy[name].training)
            self._release(name)

    source = Many()
    Slow(2, 0, lambda training: training).run([source], lambda training, epoch: None)
    assert not source.left


class Once:
    """A source of one training that no worker can do."""

    def __init__(self, training):
        self.training, self.result = training, None

    def ask(self):
        training, self.training = self.training, None
        return training

    def tell(self, training, result):
        self.result = result


def briefing():
    from prune_nas.config import Config
    from tests.search.tiny import SETTINGS

    names = {k.replace("-", "_"): v for k, v in SETTINGS.items() if k not in ("preset", "budget")}
    config = Config(**names, budget=("macs=0.4",))
    return {"config": config.model_dump(mode="json"), "threads": 1, "precision": "fp32", "fingerprint": ""}


def test_a_training_whose_worker_dies_three_times_has_failed(monkeypatch):
    from tests.search.test_study import SPACE, order

    monkeypatch.setattr(sys, "executable", "/bin/false")  # a worker that ends at once, as one that memory kills
    source = Once(order(0, SPACE.widest))
    with Workers(["cpu", "cpu"], briefing()) as crew:
        crew.run([source], lambda training, epoch: None)
    assert source.result.val_accuracy is None
    assert "ended 3 times" in source.result.error


def test_what_a_lost_training_took_is_counted(monkeypatch):
    from tests.search.test_study import SPACE, order

    script = "import sys\nsys.stdin.readline(); sys.stdin.readline()\nprint(sys.argv[-1], flush=True)"
    epoch = {"number": 2, "train_loss": 1.0, "val_accuracy": 0.5, "seconds": 3.0}
    line = json.dumps({"kind": "epoch", "epoch": epoch})
    real = subprocess.Popen
    monkeypatch.setattr(
        "prune_nas.search.crew.subprocess.Popen",
        lambda command, **options: real([sys.executable, "-c", script, line], **options),
    )
    source = Once(order(0, SPACE.widest))
    with Workers(["cpu", "cpu"], briefing()) as crew:
        crew.run([source], lambda training, epoch: None)
    assert "ended 3 times" in source.result.error
    assert (source.result.epochs, source.result.seconds) == (2, 9.0)


def test_what_goes_wrong_in_a_worker_is_said_by_the_parent():
    from prune_nas.errors import PruneNasError
    from tests.search.test_study import SPACE, order

    with Workers(["cpu"], briefing()) as crew, pytest.raises(PruneNasError, match="data set changed") as caught:
        crew.run([Once(order(0, SPACE.widest))], lambda training, epoch: None)
    assert caught.value.exit_code == 2


def test_how_many_workers(monkeypatch):
    import torch

    from prune_nas.config import Config

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    plain = Config(model="m", dataset="d", threads=6)
    assert crew_devices(plain, cpu) == ["cpu"] * 6
    assert crew_devices(plain.model_copy(update={"threads": 64}), cpu) == ["cpu"] * 8
    assert crew_devices(plain, gpu) == ["cuda"]
    assert crew_devices(Config(model="m", dataset="d", threads=6, workers="4"), cpu) == ["cpu"] * 4
    assert crew_devices(Config(model="m", dataset="d", threads=1, workers="auto"), cpu) == ["cpu"]
    two = ("cuda:0", "cuda:1")
    assert crew_devices(plain.model_copy(update={"devices": two}), gpu) == ["cuda:0", "cuda:1"]
    each = plain.model_copy(update={"devices": two, "trials_per_device": 2})
    assert crew_devices(each, gpu) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert crew_devices(plain.model_copy(update={"devices": two, "workers": 3}), gpu) == ["cuda:0", "cuda:1", "cuda:0"]
    assert crew_devices(plain.model_copy(update={"trials_per_device": 3}), gpu) == ["cuda"] * 3


def test_who_trains_must_be_said_without_contradiction():
    from prune_nas.config import Config, resolve
    from prune_nas.errors import UsageError

    with pytest.raises(UsageError, match="need a --storage"):
        resolve({"model": "m", "dataset": "d", "workers": "0"}, environment={})
    Config(model="m", dataset="d", workers=0)  # as a run's file has it, which never holds the storage
    with pytest.raises(UsageError, match="Leave --device cuda out"):
        Config(model="m", dataset="d", devices=("cpu",), device="cuda")


def readable(run):
    """Every file of a run, read as its readers do; whatever a kill left must be whole."""
    kinds = {"trials.csv": TrialRow, "curves.csv": Curve, "finals.csv": Final, "ledger.csv": Expense}
    for path in run.rglob("*"):
        if path.name.startswith(".") or not path.is_file():  # the lock, and what a cut-off write left beside its file
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.name in kinds:
            read_table(path, kinds[path.name])
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".journal":
            assert [json.loads(line) for line in path.read_text().splitlines()]


def disturbed(run, command, kills, seed):
    """Kill the search, or one of its workers, so many times at random moments, and let it end."""
    chance, lasted = random.Random(seed), 12.0
    for _ in range(kills):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, lasted))
        workers = children(process.pid)
        victim = chance.choice([process.pid, process.pid, *workers])
        if process.poll() is not None:  # it ended before its time: begin earlier from now on
            lasted /= 2
            continue
        os.kill(victim, signal.SIGKILL)
        if victim != process.pid:
            time.sleep(chance.uniform(0, 3))
            process.kill()
        process.wait()
        while any(map(alive, workers)):
            time.sleep(0.05)
        readable(run)
    subprocess.run(command, check=True, capture_output=True)
    readable(run)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_the_same(tmp_path, searched_by_two):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "prune_nas", *arguments(run, **TWO)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not waits_for(run, "study"):
        assert process.poll() is None, "it ended before a worker could be killed"
        time.sleep(0.02)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    time.sleep(2)
    process.kill()
    process.wait()
    readable(run)
    disturbed(run, command, kills=1, seed=0)
    assert outcome(run) == outcome(searched_by_two)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_kills_lose_nothing_and_repeat_nothing(tmp_path):
    settings = {**TWO, "trials": 20, "sampler": "random"}
    run, alone = tmp_path / "run", tmp_path / "alone"
    disturbed(run, [sys.executable, "-m", "prune_nas", *arguments(run, **settings)], kills=30, seed=1)
    command = [sys.executable, "-m", "prune_nas", *arguments(alone, **{**settings, "workers": 1})]
    subprocess.run(command, check=True, capture_output=True)
    assert outcome(run) == outcome(alone)
    epochs = Counter((r.budget, r.trial, r.epoch) for r in read_table(run / "curves.csv", Curve))
    assert set(epochs.values()) == {1}
    assert sum(row.state == "COMPLETE" for row in read_table(run / "trials.csv", TrialRow)) >= 20


def test_alone_asks_each_source_until_it_has_no_more():
    class Place:
        def perform(self, training, on_epoch):
            on_epoch(f"epoch of {training}")
            return f"result of {training}"

    class Listed:
        def __init__(self, *trainings):
            self.left, self.told = list(trainings), []

        def ask(self):
            return self.left.pop(0) if self.left else None

        def tell(self, training, result):
            self.told.append((training, result))

    first, second, epochs = Listed("a", "b"), Listed("c"), []
    Alone(Place()).run([first, second], lambda training, epoch: epochs.append((training, epoch)))
    assert first.told == [("a", "result of a"), ("b", "result of b")]
    assert second.told == [("c", "result of c")]
    assert epochs == [(t, f"epoch of {t}") for t in "abc"]


class Dying:
    """A worker that ends with each order for a training, by the next of some signals; a result where there is none."""

    statuses, briefings = [], []

    def __init__(self, name, briefing, inbox):
        self.name, self.inbox = name, inbox
        self.briefings.append(briefing)

    def order(self, order):
        if self.statuses:
            self.inbox.put((self, None))
        else:
            self.inbox.put((self, {"kind": "result", "result": {"val_accuracy": 0.5, "epochs": 1, "seconds": 1.0}}))

    def end(self):
        return self.statuses.pop(0) if self.statuses else 0


class One:
    """A source of a single training."""

    def __init__(self, training):
        self.left, self.result = [training], None

    def ask(self):
        return self.left.pop() if self.left else None

    def tell(self, training, result):
        self.result = result


@pytest.mark.parametrize(
    ("statuses", "formats", "said"),
    [
        ([-6], [True, False], None),
        ([-11, -6], [True, False], "crashed in compiled code (SIGABRT), in channels_last and in contiguous memory"),
        ([-9, -9], [True, True, True], None),
        ([-9, -9, -9], [True, True, True], "ended 3 times, last with status -9"),
    ],
)
def test_a_crash_is_not_taken_for_a_kill_and_is_tried_once_in_another_format(
    monkeypatch, tmp_path, statuses, formats, said
):
    monkeypatch.setattr(crew, "_Worker", Dying)
    monkeypatch.setattr(Dying, "statuses", list(statuses))
    monkeypatch.setattr(Dying, "briefings", [])
    source = One(Training("", "trial 0", "trial 0", Widths({"a": 4}), 0, 1, tmp_path / "x"))
    with crew.Workers(["cpu"], {}) as workers:
        workers.run([source], lambda training, epoch: None)
    assert [briefing["channels_last"] for briefing in Dying.briefings] == formats
    assert (not source.result.error) if said is None else (said in source.result.error)
