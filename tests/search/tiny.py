"""The smallest search that has every part: digits at 16x16, quarter-width VGG-11, one epoch of most things."""

SETTINGS = {
    "model": "vgg11",
    "dataset": "digits",
    "preset": "smoke",
    "base-width": 0.125,
    "image-size": 16,
    "train-size": 200,
    "val-size": 100,
    "supernet-epochs": 3,
    "trials": 4,
    "trial-epochs": 1,
    "finalists": 1,
    "search-cost": 20,
    "epochs": 2,
    "seeds": 2,
    "randoms": 1,
    "precision": "fp32",
    "budget": "macs=0.4",
    "threads": 1,
}


def arguments(run, *, figures=False, **changes):
    """The command's arguments, with `changes` (None drops one); figures take longer than the search."""
    settings = {**SETTINGS, **{k.replace("_", "-"): v for k, v in changes.items()}}
    flags = [(f"--{name}", str(value)) for name, value in settings.items() if value is not None]
    return [
        "search",
        *(text for flag in flags for text in flag),
        *([] if figures else ["--no-figures"]),
        "--run",
        str(run),
    ]


LEARNT = {"train-size": 450, "supernet-epochs": 12, "epochs": 7}  # long enough that every network learns


def resuming(run, **changes):
    """The arguments that made the run of the fixture `searched`, with changes."""
    return arguments(run, **{**{k.replace("-", "_"): v for k, v in LEARNT.items()}, **changes})
