"""The queue without machines: SQLite, threads, and a database that is away again and again."""

import random
import threading
import time
from dataclasses import replace

import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from prune_nas.config import Config
from prune_nas.errors import MissingError, PruneNasError, UsageError
from prune_nas.search.cluster import coordinator, storage
from prune_nas.search.cluster import queue as queue_module
from prune_nas.search.cluster.queue import Order, made, result_from_dict, result_to_dict
from prune_nas.search.cluster.storage import Storage, masked, open_storage, parse_url, patiently
from prune_nas.search.cluster.worker import Worker
from prune_nas.search.progress import View
from prune_nas.search.work import Result
from prune_nas.training.loop import Epoch
from tests.search.test_study import SPACE, order


def training(number, **changes):
    return replace(order(number, SPACE.widest), seed=number, **changes)


@pytest.fixture
def queue(tmp_path):
    return made(open_storage(parse_url(f"sqlite:///{tmp_path}/db"), 60), "run")


def test_an_order_comes_back_as_it_was_put_in_but_for_its_paths(queue, tmp_path):
    one = Order(training(3, weights=tmp_path / "w"), None, keeps=True)
    queue.add(one)
    (waiting,) = queue.study.get_trials()
    there = waiting.user_attrs["order"]
    assert str(tmp_path) not in str(there)
    assert Order.from_dict(there).to_dict() == one.to_dict()
    assert Order.from_dict(there).key == one.key == waiting.user_attrs["key"]


def test_what_is_in_the_queue_or_finished_is_not_put_in_again(queue):
    one = Order(training(0), None, keeps=False)
    queue.add(one)
    queue.add(one)
    assert len(queue.study.get_trials()) == 1
    trial = queue.study.ask()
    queue.add(one)
    assert queue.deliver(trial, result_to_dict(Result(0.5, 1, 1.0), None), [])
    queue.study.tell(trial, 0.5)
    queue.add(one)
    assert [t.state for t in queue.study.get_trials()] == [TrialState.COMPLETE]


def test_who_reaches_for_a_training_that_another_took_leaves_no_trial_behind(queue, tmp_path, monkeypatch):
    worker = Worker(queue, None, tmp_path, lambda line: None)
    queue.add(Order(training(0), None, keeps=False))
    queue.study.ask()
    monkeypatch.setattr(queue, "waiting", lambda: True)
    assert worker.next() is False
    assert [t.state for t in queue.study.get_trials()] == [TrialState.RUNNING]


def test_a_late_result_is_kept_once(queue):
    one = Order(training(0), None, keeps=False)
    queue.add(one)
    trial = queue.study.ask()
    queue.give_up(queue.study.get_trials()[0])
    assert [t.state for t in queue.study.get_trials()] == [TrialState.FAIL, TrialState.WAITING]
    result = result_to_dict(Result(0.5, 1, 1.0), None)
    assert not queue.deliver(trial, result, [])
    assert not queue.deliver(trial, result, [])
    entry = queue.entries()[one.key]
    assert entry.outcome == result
    late = [t for t in entry.trials if "late_of" in t.user_attrs]
    assert [(t.value, t.user_attrs["late_of"]) for t in late] == [(0.5, 0)]


def test_a_training_is_put_in_again_until_it_was_lost_three_times(queue):
    one = Order(training(0), None, keeps=False)
    queue.add(one)
    for _ in range(storage.TRIES):
        queue.study.ask()
        running = [t for t in queue.study.get_trials() if t.state == TrialState.RUNNING]
        queue.give_up(running[0])
    entry = queue.entries()[one.key]
    assert entry.lost == storage.TRIES
    assert not entry.open


@pytest.mark.parametrize("size", [0, 1, 100, 1000])
def test_a_file_travels_whole(queue, tmp_path, size, monkeypatch):
    monkeypatch.setattr("prune_nas.search.cluster.queue._PIECE", 100)
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    digest = queue.put_file(tmp_path / "file")
    assert queue.put_file(tmp_path / "file") == digest
    queue.get_file(digest, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    queue.drop_file(digest)
    if size:
        with pytest.raises(PruneNasError, match="is incomplete in the database"):
            queue.get_file(digest, tmp_path / "copy")
    queue.drop_files()
    assert [s.study_name for s in queue._storage.get_all_studies()] == ["run"]


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "a" * 63, "A" * 64, "a" * 64 + "/x"])
def test_a_file_whose_name_is_no_digest_is_refused(queue, tmp_path, digest):
    with pytest.raises(ValueError, match="SHA-256"):
        queue.get_file(digest, tmp_path / "copy")


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "../../secret"},
        {"training": None},
        {"training": {}},
        {"training": {**Order(training(0), None, keeps=False).to_dict()["training"], "epochs": 10**9}},
        {"training": {**Order(training(0), None, keeps=False).to_dict()["training"], "epochs": -1}},
        {"training": {**Order(training(0), None, keeps=False).to_dict()["training"], "code": "import os"}},
        {"training": {**Order(training(0), None, keeps=False).to_dict()["training"], "widths": {"a": "b"}}},
    ],
)
def test_what_is_no_training_is_refused(change):
    plain = Order(training(0), None, keeps=False).to_dict()
    with pytest.raises(UsageError, match="the queue"):
        Order.from_dict({**plain, **change})


@pytest.mark.parametrize("change", [{"val_accuracy": 1.5}, {"val_accuracy": float("nan")}, {"seconds": -1}, {"x": 1}])
def test_what_is_no_result_is_refused(change):
    plain = result_to_dict(Result(0.5, 1, 1.0), None)
    assert result_from_dict(plain, "host.example:7") == Result(0.5, 1, 1.0, worker="host.example:7")
    assert result_from_dict(plain, '=HYPERLINK("x")').worker == ""
    with pytest.raises(PruneNasError, match="an entry that is not a result"):
        result_from_dict({**plain, **change}, "me")


def test_a_password_is_never_shown():
    url = parse_url("postgresql://me:pa55@host/db?password=pa55&sslkey=pa55")
    assert masked(url) == "postgresql+psycopg://me:***@host/db"
    with pytest.raises(UsageError) as error:
        parse_url("my pa55 is no url")
    assert "pa55" not in str(error.value)
    with pytest.raises(MissingError) as unreachable:
        open_storage(parse_url("postgresql://me:pa55@127.0.0.1:1/db"), 60)
    for careless in (
        "postgresql://me:p@55@host/db",
        "postgresql://me:p@x:55@host/db",
        "postgresql://me@host:port55/db",
    ):
        with pytest.raises(UsageError) as wrong:
            parse_url(careless)
        assert "55" not in str(wrong.value)
    assert "pa55" not in str(unreachable.value)
    assert "127.0.0.1:1/db" in str(unreachable.value)
    config = Config(model="m", dataset="d", storage="postgresql://me:pa55@host/db")
    assert "pa55" not in str(config) + repr(config) + config.model_dump_json()


def test_only_databases_that_hand_out_a_training_once_are_taken():
    with pytest.raises(UsageError, match="mysql"):
        parse_url("mysql://me@host/db")
    sqlite = parse_url("sqlite:////tmp/x.db")
    assert coordinator._checked(sqlite, 1) == sqlite
    for workers in (0, 2):
        with pytest.raises(UsageError, match="--workers 1"):
            coordinator._checked(sqlite, workers)


def test_a_call_is_repeated_while_the_database_is_away(monkeypatch):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    left, said = [StorageInternalError] * 5, []

    def call():
        if left:
            raise left.pop()
        return 7

    assert patiently(call, said.append) == 7
    assert said == ["the database is away. Waiting for it"]
    left += [StorageInternalError] * 5
    with pytest.raises(MissingError, match="Repeat the command"):
        patiently(call, said.append, patience=-1)


class Flaky(Storage):
    """A database that is away at one in ten calls."""

    chance = random.Random(3)
    calls = (
        *("get_all_trials", "_get_trials", "get_trial", "create_new_trial", "set_trial_user_attr"),
        *("set_trial_state_values", "get_study_user_attrs", "create_new_study", "delete_study", "get_all_studies"),
    )

    def __getattribute__(self, name):
        if name in Flaky.calls and Flaky.chance.random() < 0.1:
            raise StorageInternalError("away")
        return super().__getattribute__(name)


class FakePlace:
    """Trains nothing."""

    class traced:  # noqa: N801
        space = SPACE

    def __init__(self):
        self.done = []

    def perform(self, training, on_epoch):
        self.done.append(training.seed)
        for number in range(1, 4):
            on_epoch(Epoch(number, 1.0, 0.1 * number, 0.1))
        if training.weights:
            training.weights.parent.mkdir(exist_ok=True)
            training.weights.write_bytes(b"weights %d" % training.seed)
        return Result(0.3, 3, 0.3)


class Asks:
    def __init__(self, trainings):
        self.left, self.told = list(trainings), []

    def ask(self):
        return self.left.pop(0) if self.left else None

    def tell(self, training, result):
        self.told.append((training.seed, result.val_accuracy, result.error))


def test_nothing_is_lost_or_told_twice_though_the_database_is_away_again_and_again(tmp_path, monkeypatch):
    url, sleep = f"sqlite:///{tmp_path}/db", storage.time.sleep
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: sleep(0.001))
    monkeypatch.setattr(coordinator, "_BACKSTOP", 0.05)
    open_storage(parse_url(url), 1)  # tables first
    monkeypatch.setattr(coordinator, "open_storage", lambda url, beat: flaky())
    monkeypatch.setattr(coordinator, "_checked", lambda url, local: url)
    monkeypatch.setattr(coordinator, "grace", lambda beat: 2.0)  # a loaded machine may stall
    monkeypatch.setattr(coordinator, "TRIES", 99)  # nor is a training at fault for a database that is away
    monkeypatch.setattr(queue_module, "TRIES", 99)

    def flaky():
        return Flaky(url, heartbeat_interval=1, grace_period=1, engine_kwargs={"connect_args": {"timeout": 30}})

    (tmp_path / "origin").write_bytes(b"kept weights")
    trainings = [
        training(n, weights=tmp_path / f"{n}.weights", origin=tmp_path / "origin" if n % 2 else None) for n in range(8)
    ]
    source, epochs, place, stop = Asks(trainings), [], FakePlace(), threading.Event()
    config = Config(model="m", dataset="d", storage=url, heartbeat=1, workers=0)
    cluster = coordinator.Cluster(config, "run", {"config": {}}, [], 1, tmp_path, View(quiet=True))

    def serve():
        own = patiently(lambda: made(flaky(), "run"), print)
        worker = Worker(own, place, tmp_path / "worker", lambda text: None)
        while not stop.is_set():
            worker.next()
            storage.time.sleep(0)

    with cluster:
        thread = threading.Thread(target=serve)
        thread.start()
        cluster.run([source], lambda training, epoch: epochs.append((training.seed, epoch.number)))
        stop.set()
        thread.join()
    assert sorted(source.told) == [(n, 0.3, "") for n in range(8)]
    assert sorted(epochs) == [(n, e) for n in range(8) for e in (1, 2, 3)]
    assert [(tmp_path / f"{n}.weights").read_bytes() for n in range(8)] == [b"weights %d" % n for n in range(8)]
    names = [s.study_name for s in open_storage(parse_url(url), 1).get_all_studies()]
    assert names == ["run"]


def test_a_run_s_own_command_finds_its_study_again_and_another_s_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/db"
    config = Config(model="m", dataset="d", storage=url, heartbeat=1, workers=1)
    brief = {"schema": 1, "config": {"epochs": 2, "budget": ["macs=0.4"]}, "space": {"slots": []}}

    def cluster(**changes):
        return coordinator.Cluster(config, "run", {**brief, **changes}, [], 1, tmp_path, View(quiet=True))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coordinator, "_checked", lambda url, local: url)
        for _ in range(2):
            with cluster():
                pass
        with pytest.raises(UsageError, match="epochs: 2 there, 3 now"), cluster(config={"epochs": 3}):
            pass


def test_a_key_that_is_not_the_order_s_own_touches_no_file(queue, tmp_path):
    victim = tmp_path / "victim.safetensors"
    victim.write_bytes(b"precious")
    one = Order(training(0, weights=tmp_path / "w"), None, keeps=True)
    queue.study.enqueue_trial({}, user_attrs={"key": str(tmp_path / "victim"), "order": one.to_dict()})
    Worker(queue, FakePlace(), tmp_path / "worker", lambda text: None).next()
    assert victim.read_bytes() == b"precious"
    (trial,) = queue.study.get_trials()
    assert (trial.state, "under a wrong key" in trial.user_attrs["note"]) == (TrialState.FAIL, True)


@pytest.mark.parametrize(
    "order_", [None, 7, [], {"training": []}, {"training": {"epochs": "5"}, "origin": 3, "keeps": 1}]
)
def test_an_order_of_the_wrong_kind_fails_and_the_worker_goes_on(queue, tmp_path, order_):
    queue.study.enqueue_trial({}, user_attrs={"key": "k", "order": order_})
    assert Worker(queue, FakePlace(), tmp_path / "worker", lambda text: None).next()
    assert [t.state for t in queue.study.get_trials()] == [TrialState.FAIL]


def test_epochs_and_results_of_the_wrong_kind_count_as_none(queue):
    for number, wrong in enumerate([7, "x", [1], [{"number": "x"}], [{"number": 1}]]):
        one = Order(training(number), None, keeps=False)
        queue.add(one)
        trial = queue.study.ask()
        trial.set_user_attr("epochs", wrong)
        trial.set_user_attr("result", "done")
        entry = queue.entries()[one.key]
        assert (entry.epochs, entry.outcome) == ([], None)
    for wrong in ([], "x", {"epochs": "x"}, None):
        with pytest.raises(PruneNasError):
            result_from_dict(wrong, "me")


def test_who_asks_anew_gets_a_new_training_where_the_old_result_is_of_no_use(queue, tmp_path):
    one = Order(training(0), None, keeps=False)
    for result in (Result(None, 1, 1.0, error="out of memory"), Result(None, 1, 1.0, diverged=True)):
        queue.add(one, queue.spent(one))
        trial = queue.study.ask()
        assert queue.deliver(trial, result_to_dict(result, None), [])
        queue.study.tell(trial, state=TrialState.FAIL)
    queue.add(one, queue.spent(one))  # what diverged would do so again
    assert [t.state for t in queue.study.get_trials()] == [TrialState.FAIL, TrialState.FAIL]
    entry = queue.entries()[one.key].since(queue.spent(one))
    assert entry.outcome["diverged"]
    kept = Order(training(1), None, keeps=True)
    queue.add(kept)
    trial = queue.study.ask()
    (tmp_path / "w").write_bytes(b"w")
    digest = queue.put_file(tmp_path / "w")
    assert queue.deliver(trial, result_to_dict(Result(0.5, 1, 1.0), digest), [])
    queue.study.tell(trial, 0.5)
    assert queue.spent(kept) == -1
    queue.drop_file(digest)
    assert queue.spent(kept) == trial.number


def test_a_lost_training_is_queued_again_without_what_its_worker_wrote(queue):
    one = Order(training(0), None, keeps=False)
    queue.add(one)
    trial = queue.study.ask()
    trial.set_user_attr("worker", {"pid": 1})
    storage._again(queue.study, queue.study.get_trials()[0])
    again = queue.study.get_trials()[1]
    assert (again.state, set(again.user_attrs)) == (TrialState.WAITING, {"key", "order"})
    assert again.system_attrs["retry_history"] == [0]


def test_nobody_is_called_silent_just_after_the_database_was_away(tmp_path, monkeypatch):
    store = open_storage(parse_url(f"sqlite:///{tmp_path}/db"), 1)
    now = [1000.0]
    monkeypatch.setattr(storage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(storage.RDBStorage, "_get_stale_trial_ids", lambda self, study: [7])
    assert store._get_stale_trial_ids(0) == [7]

    def away(self, study):
        raise StorageInternalError

    with monkeypatch.context() as patch:
        patch.setattr(storage.RDBStorage, "_get_stale_trial_ids", away)
        for _ in range(2):
            with pytest.raises(StorageInternalError):
                store._get_stale_trial_ids(0)
            now[0] += 100
    assert store._get_stale_trial_ids(0) == []
    now[0] += storage.grace(1) + 1
    assert store._get_stale_trial_ids(0) == [7]


@pytest.mark.parametrize("moment", ["in hand", "given up", "away"])
def test_a_worker_told_to_stop_stops_whatever_optuna_makes_of_it(queue, tmp_path, monkeypatch, moment):
    queue.add(Order(training(0), None, keeps=False))
    place = FakePlace()

    def away(*args):
        raise StorageInternalError

    def perform(training, on_epoch):
        if moment == "given up":
            queue.study.tell(0, state=TrialState.FAIL)
        if moment == "away":
            monkeypatch.setattr(storage.RDBStorage, "get_trial", away)
        raise KeyboardInterrupt

    monkeypatch.setattr(place, "perform", perform)
    with pytest.raises(KeyboardInterrupt):
        Worker(queue, place, tmp_path / "worker", lambda text: None).next()
    if moment == "in hand":
        assert [t.state for t in queue.study.get_trials()] == [TrialState.FAIL, TrialState.WAITING]


def test_at_the_end_every_trial_ends_too(queue):
    for number in range(3):
        queue.add(Order(training(number), None, keeps=False))
    queue.study.ask()
    delivered = queue.study.ask()  # its worker lost the database before it could tell the trial
    queue.deliver(delivered, result_to_dict(Result(0.5, 1, 1.0), None), [])
    queue.close()
    assert [(t.state, t.value) for t in queue.study.get_trials()] == [
        (TrialState.FAIL, None),
        (TrialState.COMPLETE, 0.5),
        (TrialState.FAIL, None),
    ]


def test_who_loses_the_first_beat_is_given_up_all_the_same(tmp_path, monkeypatch):
    store = open_storage(parse_url(f"sqlite:///{tmp_path}/db"), 1)
    store.grace_period = 1
    own, place, stale = made(store, "run"), FakePlace(), []
    own.add(Order(training(0), None, keeps=False))
    monkeypatch.setattr(Storage, "record_heartbeat", lambda self, trial: None)  # Optuna's thread: away each time

    def perform(training, on_epoch):
        deadline = time.monotonic() + 20
        while not stale and time.monotonic() < deadline:
            time.sleep(0.1)
            stale.extend(store._get_stale_trial_ids(own.study._study_id))
        return Result(0.3, 3, 0.3)

    monkeypatch.setattr(place, "perform", perform)
    Worker(own, place, tmp_path / "worker", lambda text: None).next()
    assert stale == [own.study.get_trials()[0]._trial_id]


def test_opening_is_tried_again_where_another_makes_the_tables_at_once(monkeypatch, tmp_path):
    url, real, tries = parse_url(f"sqlite:///{tmp_path}/db"), storage._opened, []

    def first_fails(*arguments):
        tries.append(arguments)
        if len(tries) == 1:
            raise StorageInternalError("duplicate key value violates unique constraint")
        return real(*arguments)

    monkeypatch.setattr(storage, "_opened", first_fails)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    assert open_storage(url, 1).get_all_studies() == []
    assert len(tries) == 2
