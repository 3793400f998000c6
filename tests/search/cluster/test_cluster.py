"""Many machines: a real PostgreSQL, real workers, killed, suspended and cut off from it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from prune_nas.design.records import TrialRow, read_table
from prune_nas.search.cluster.queue import GIVEN_BACK, found
from prune_nas.search.cluster.storage import AWAY, open_storage, parse_url
from tests.search.tiny import arguments

from .postgres import SECRET

BEAT = 1  # seconds; four beats missed, and a worker counts as lost
QUICK = {
    "supernet_epochs": 1, "trial_epochs": 3, "finalists": 0, "seeds": 1, "epochs": 1, "arms": "found,uniform",
    "sampler": "random",
}  # fmt: skip


def environment(postgres):
    return {**os.environ, "PRUNE_NAS_STORAGE": postgres.url, "PRUNE_NAS_HEARTBEAT": str(BEAT)}


def start_search(postgres, run, **changes):
    command = [sys.executable, "-m", "prune_nas", *arguments(run, **changes)]
    return subprocess.Popen(
        command, env=environment(postgres), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


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
    return subprocess.Popen(command, env=environment(postgres), stderr=subprocess.PIPE, text=True)


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


def test_sixty_trials_survive_a_kill_a_pause_and_a_restart_of_the_database(tmp_path, postgres):
    run, trials = tmp_path / "sixty", 60
    search = start_search(postgres, run, trials=trials, workers=0, **QUICK)
    workers = [start_worker(postgres, "sixty", tmp_path / f"worker{i}") for i in range(4)]
    watch = Watch(postgres, "sixty")
    killed, paused = workers[0], workers[1]

    until(lambda: watch.finished() >= 5 and watch.in_hand_of(killed.pid), search)
    killed.kill()
    until(lambda: watch.in_hand_of(paused.pid), search)
    paused.send_signal(signal.SIGSTOP)
    held = watch.in_hand_of(paused.pid)
    if held is not None:
        until(lambda: watch.trials()[held.number].state.name == "FAIL", search)
    paused.send_signal(signal.SIGCONT)
    until(lambda: watch.finished() >= 25, search)
    postgres.stop()
    time.sleep(2)
    postgres.start()
    _, err = search.communicate(timeout=240)
    assert search.returncode == 0, err
    for worker in workers[1:]:
        _, said = worker.communicate(timeout=60)
        assert worker.returncode == 0, said

    # Sixty finished, none lost, and the same as without all that.
    alone = tmp_path / "alone"
    subprocess.run(
        [sys.executable, "-m", "prune_nas", *arguments(alone, trials=trials, **QUICK)], check=True, capture_output=True
    )
    assert trained(run) == trained(alone)
    assert len(trained(run)) == trials

    # None paid twice but what was interrupted, and the history says so of each.
    interrupted = [t for t in watch.trials() if t.state.name == "FAIL"]
    assert {t.user_attrs["worker"]["pid"] for t in interrupted if "worker" in t.user_attrs} <= {w.pid for w in workers}
    again = Counter(t.user_attrs["key"] for t in interrupted)
    results = Counter(t.user_attrs["key"] for t in watch.trials() if "result" in t.user_attrs)
    assert set(results.values()) == {1} or all(key in again for key, count in results.items() if count > 1)
    assert any("killed" or t for t in interrupted)
    assert {t.state.name for t in watch.trials()} <= {"COMPLETE", "FAIL", "PRUNED"}
    assert SECRET not in err + said + (run / "run.json").read_text()
    assert watch.queue.done
    assert not [s for s in watch._storage.get_all_studies() if "/file/" in s.study_name]
    assert json.loads((run / "verdict.json").read_text())


def test_what_a_worker_gives_back_is_done_by_another_at_once(tmp_path, postgres):
    run = tmp_path / "given"
    search = start_search(postgres, run, trials=4, workers=0, **{**QUICK, "trial_epochs": 30})
    first = start_worker(postgres, "given", tmp_path / "first")
    watch = Watch(postgres, "given")
    until(lambda: watch.in_hand_of(first.pid), search, first)
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    second = start_worker(postgres, "given", tmp_path / "second")
    _, err = search.communicate(timeout=240)
    assert search.returncode == 0, err
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert [t.user_attrs.get("note") for t in watch.trials()].count(GIVEN_BACK) == 1
