"""Rows of `finals.csv` for tests of what is said about them."""

from dataclasses import replace

from prune_nas.design.records import Final

ROW = Final("macs=0.2", "found", "", "", "aaaa", 0, "scratch-e", 12, 10, 5, 0.7, 0.7, 300, 1.0)


def arm(name, accuracies, **changes):
    """Rows of one arm over seeds 0, 1, ..."""
    return [
        replace(ROW, arm=name, seed=seed, test_accuracy=a, val_accuracy=a, **{"candidate": name, **changes})
        for seed, a in enumerate(accuracies)
    ]
