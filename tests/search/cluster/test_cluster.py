"""Many machines: a real PostgreSQL, real workers, killed, suspended and cut off from it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import text

from prune_nas.config import Config
from prune_nas.design.records import TrialRow, read_table
from prune_nas.search.cluster import storage
from prune_nas.search.cluster.briefing import briefing
from prune_nas.search.cluster.coordinator import Cluster
from prune_nas.search.cluster.queue import GIVEN_BACK, found, made
from prune_nas.search.cluster.storage import AWAY, open_storage, parse_url
from prune_nas.search.progress import View
from prune_nas.search.setup import prepare
from prune_nas.search.work import Training, Workplace
from prune_nas.training.loop import Setting
from prune_nas.training.precision import Precision
from tests.search.tiny import SETTINGS, arguments

from .postgres import SECRET

BEAT = 1  # seconds; four beats missed, and a worker counts as lost
QUICK = {
    "supernet_epochs": 1, "trial_epochs": 2, "finalists": 0, "seeds": 1, "epochs": 1, "arms": "found,uniform",
    "sampler": "random", "search_cost": 60,
}  # fmt: skip


PROCESSES = []


@pytest.fixture(autouse=True)
def _nobody_is_left():
    """What a test that failed has left, suspended processes too."""
    yield
    while PROCESSES:
        PROCESSES.pop().kill()


def environment(postgres):
    return {**os.environ, "PRUNE_NAS_STORAGE": postgres.url, "PRUNE_NAS_HEARTBEAT": str(BEAT)}


def start_search(postgres, run, **changes):
    command = [sys.executable, "-m", "prune_nas", *arguments(run, **changes)]
    return started(command, environment(postgres))


def started(command, environment):
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    PROCESSES.append(process)
    return process


def start_worker(postgres, study, folder, **flags):
    extra = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    command = [
        sys.executable,
        "-m",
        "prune_nas",
        "worker",
        "--study",
        study,
        "--threads",
        "1",
        "--dir",
        str(folder),
        *extra,
    ]
    return started(command, environment(postgres))


class Watch:
    """What a test sees of a queue, through a connection of its own."""

    def __init__(self, postgres, study):
        self._storage, self._study = open_storage(parse_url(postgres.url), BEAT), study

    @property
    def queue(self):
        return found(self._storage, self._study)

    def trials(self):
        try:
            queue = self.queue
            return queue.study.get_trials() if queue else []
        except AWAY:
            return []

    def finished(self):
        return sum("result" in trial.user_attrs for trial in self.trials())

    def has_met(self, pid):
        """Whether a worker has had a trial."""
        return any(trial.user_attrs.get("worker", {}).get("pid") == pid for trial in self.trials())

    def in_hand_of(self, pid):
        """The running trial of a worker."""
        for trial in self.trials():
            if trial.state.name == "RUNNING" and trial.user_attrs.get("worker", {}).get("pid") == pid:
                return trial
        return None


def until(condition, *alive, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found_it := condition()):
        for process in alive:
            assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
    return found_it


def trained(run):
    return {
        (row.widths, row.value, row.epochs)
        for row in read_table(run / "trials.csv", TrialRow)
        if row.state == "COMPLETE"
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trials", [16, pytest.param(60, marks=pytest.mark.slow)])
def test_trials_survive_a_kill_a_pause_and_a_restart_of_the_database(tmp_path, postgres, trials):
    run, watch = tmp_path / "many", Watch(postgres, "many")
    asked = {**QUICK, "trial_epochs": 7, "search_cost": 1000}  # longer than a look into the database takes
    search = start_search(postgres, run, trials=trials, workers=0, **asked)

    def another():
        workers.append(start_worker(postgres, "many", tmp_path / f"worker{len(workers)}"))
        return workers[-1]

    def stopped_in_a_training(worker):
        """No other worker is awake, so that trainings are left however often a look comes too late."""
        while True:
            until(lambda: watch.in_hand_of(worker.pid), search)
            worker.send_signal(signal.SIGSTOP)
            if held := watch.in_hand_of(worker.pid):
                return held
            worker.send_signal(signal.SIGCONT)

    workers = []
    killed = another()
    until(lambda: watch.finished() >= 2, search)
    stopped_in_a_training(killed)
    killed.kill()
    paused = another()
    held = stopped_in_a_training(paused)  # past the grace period
    others = another(), another()
    until(lambda: watch.trials()[held.number].state.name == "FAIL", search)
    paused.send_signal(signal.SIGCONT)
    until(lambda: watch.finished() >= trials // 2, search)
    for worker in others:  # who has not reached the database yet would give up
        until(lambda worker=worker: watch.has_met(worker.pid), search)
    postgres.stop()
    time.sleep(2)
    postgres.start()
    _, err = search.communicate(timeout=240)
    assert search.returncode == 0, err
    for worker in workers[1:]:
        _, said = worker.communicate(timeout=60)
        assert worker.returncode == 0, said

    # All finished, none lost, and the same as without all that.
    alone = tmp_path / "alone"
    subprocess.run(
        [sys.executable, "-m", "prune_nas", *arguments(alone, trials=trials, **asked)], check=True, capture_output=True
    )
    assert trained(run) == trained(alone)
    assert len(trained(run)) == trials

    # None paid twice but what was interrupted, and the history says so of each.
    history = watch.trials()
    assert {t.state.name for t in history} <= {"COMPLETE", "FAIL"}
    interrupted = [t for t in history if t.state.name == "FAIL"]
    by = {t.user_attrs["worker"]["pid"] for t in interrupted if "worker" in t.user_attrs}
    assert {killed.pid, paused.pid} <= by <= {worker.pid for worker in workers}
    results = Counter(t.user_attrs["key"] for t in history if "result" in t.user_attrs)
    assert {key for key, count in results.items() if count > 1} <= {t.user_attrs["key"] for t in interrupted}
    retried = [t for t in history if t.system_attrs.get("retry_history")]
    assert {t.user_attrs["key"] for t in retried} <= {t.user_attrs["key"] for t in interrupted}
    assert SECRET not in err + said + (run / "run.json").read_text()
    assert watch.queue.done
    assert not [s for s in watch._storage.get_all_studies() if "/file/" in s.study_name]
    assert json.loads((run / "verdict.json").read_text())


@pytest.mark.slow
def test_the_command_killed_twice_and_repeated_takes_what_its_worker_did_meanwhile(tmp_path, postgres):
    run, trials = tmp_path / "repeated", 12
    search = start_search(postgres, run, trials=trials, workers=0, **QUICK)
    worker = start_worker(postgres, "repeated", tmp_path / "worker")
    watch = Watch(postgres, "repeated")
    for done in (3, 8):
        until(lambda done=done: watch.finished() >= done, search, worker)
        search.kill()
        search.wait()
        search = start_search(postgres, run, trials=trials, workers=0, **QUICK)
    _, err = search.communicate(timeout=120)
    assert search.returncode == 0, err
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0, said

    alone = tmp_path / "alone"
    subprocess.run(
        [sys.executable, "-m", "prune_nas", *arguments(alone, trials=trials, **QUICK)], check=True, capture_output=True
    )
    assert trained(run) == trained(alone)
    results = Counter(t.user_attrs["key"] for t in watch.trials() if "result" in t.user_attrs)
    assert set(results.values()) == {1}


def test_who_stands_still_inside_a_transaction_stops_nobody_for_long(postgres, monkeypatch):
    monkeypatch.setattr(storage, "_HELD", 1)
    still, other = (open_storage(parse_url(postgres.url), BEAT) for _ in range(2))
    queue = made(still, "still")
    queue.study.enqueue_trial({})
    lock = text(f"SELECT * FROM studies WHERE study_id = {queue.study._study_id} FOR UPDATE")  # noqa: S608
    with still.engine.connect() as held, other.engine.connect() as blocked:
        held.execute(lock)
        blocked.execute(text("SET lock_timeout = '60s'"))
        assert len(blocked.execute(lock).all()) == 1
        with pytest.raises(AWAY):
            held.execute(lock)


class Trainings:
    """A source of one training of each of some seeds."""

    def __init__(self, space, seeds, epochs, folder):
        names = {seed: f"trial {seed}" for seed in seeds}
        self.left = [
            Training("", name, name, space.base, n, epochs, folder / str(n), weights=folder / f"{n}.safetensors")
            for n, name in names.items()
        ]
        self.results = {}

    def ask(self):
        return self.left.pop(0) if self.left else None

    def tell(self, training, result):
        self.results[training.seed] = result


@pytest.fixture
def made_cluster(postgres, tmp_path):
    """Makes a cluster of some name and local workers, and the place that it trains at."""

    def make(name, local=()):
        names = {k.replace("-", "_"): v for k, v in SETTINGS.items() if k not in ("preset", "budget")}
        config = Config(**names, budget=("macs=0.4",), storage=postgres.url, heartbeat=BEAT, workers=len(local))
        device, data, traced = prepare(config)
        setting = Setting(data, device, Precision("fp32"))
        view = View(quiet=True)
        cluster = Cluster(config, name, briefing(config, traced, setting), local, 1, tmp_path / "local", view)
        return cluster, Workplace(config, traced, setting)

    return make


def test_what_a_worker_gives_back_is_done_by_another_at_once(tmp_path, postgres, made_cluster):
    cluster, place = made_cluster("given")
    source = Trainings(place.traced.space, range(2), 20, tmp_path)
    watch = Watch(postgres, "given")
    first = start_worker(postgres, "given", tmp_path / "first")

    def stop_the_first():
        until(lambda: watch.in_hand_of(first.pid), first)
        first.send_signal(signal.SIGTERM)
        others.append(start_worker(postgres, "given", tmp_path / "second"))

    others = []
    with cluster:
        thread = threading.Thread(target=stop_the_first)
        thread.start()
        cluster.run([source], lambda training, epoch: None)
        thread.join()
    assert first.wait(60) == 130
    assert others[0].wait(60) == 0, others[0].stderr.read()
    assert [t.user_attrs.get("note") for t in watch.trials()].count(GIVEN_BACK) == 1

    # The same as here, weights included.
    for seed, result in source.results.items():
        own = Trainings(place.traced.space, [seed], 20, tmp_path / "own").ask()
        here = place.perform(own, lambda epoch: None)
        assert (here.val_accuracy, here.epochs) == (result.val_accuracy, result.epochs)
        for name, value in load_file(own.weights).items():
            assert torch.equal(value, load_file(tmp_path / f"{seed}.safetensors")[name])


@pytest.mark.slow
def test_a_local_worker_that_is_killed_is_replaced(tmp_path, postgres, made_cluster):
    cluster, place = made_cluster("local", ["cpu"])
    source = Trainings(place.traced.space, range(2), 20, tmp_path)
    watch = Watch(postgres, "local")
    epochs = []

    def on_epoch(training, epoch):
        epochs.append((training.name, epoch.number))
        if len(epochs) == 10:
            running = [t for t in watch.trials() if t.state.name == "RUNNING"]
            os.kill(running[0].user_attrs["worker"]["pid"], signal.SIGKILL)

    with cluster:
        cluster.run([source], on_epoch)
    assert {seed: result.error for seed, result in source.results.items()} == {0: "", 1: ""}
    assert len(epochs) == len(set(epochs)) == 40
