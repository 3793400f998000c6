"""The curves file: appended to, never doubled, and of one training each."""

from prune_nas.design.records import Curve, read_table
from prune_nas.search.curves import Curves


def epoch(number, loss, trial="trial 0", seconds=1.0):
    return Curve("macs=0.4", trial, number, loss, 0.5, seconds)


def losses(path):
    return [(row.trial, row.epoch, row.train_loss) for row in read_table(path, Curve)]


def test_an_epoch_that_is_reported_again_is_not_written_twice(tmp_path):
    path = tmp_path / "curves.csv"
    first = Curves(path)
    first.add(epoch(1, 1 / 3))
    first.add(epoch(2, 0.9))
    again = Curves(path)
    again.add(epoch(2, 0.9, seconds=7.0))
    again.add(epoch(3, 0.8))
    assert losses(path) == [("trial 0", 1, 1 / 3), ("trial 0", 2, 0.9), ("trial 0", 3, 0.8)]


def test_a_training_that_began_anew_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "curves.csv"
    curves = Curves(path)
    for row in (epoch(1, 1.0), epoch(1, 5.0, "trial 1"), epoch(2, 0.9), epoch(3, 0.8)):
        curves.add(row)
    curves.add(epoch(1, 9.0))
    assert losses(path) == [("trial 1", 1, 5.0), ("trial 0", 1, 9.0)]
    curves.add(epoch(2, 8.0))
    assert losses(path) == [("trial 1", 1, 5.0), ("trial 0", 1, 9.0), ("trial 0", 2, 8.0)]


def test_a_last_line_that_a_crash_cut_off_is_dropped(tmp_path):
    path = tmp_path / "curves.csv"
    Curves(path).add(epoch(1, 1.0))
    with path.open("a") as file:
        file.write("macs=0.4,trial 0,2,0.")
    Curves(path).add(epoch(2, 0.9))
    assert losses(path) == [("trial 0", 1, 1.0), ("trial 0", 2, 0.9)]
