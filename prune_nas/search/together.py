"""A run under `torchrun`: its processes do each training together. The first decides, the others follow its orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prune_nas.config import Config
from prune_nas.errors import UsageError
from prune_nas.search.setup import on_device, prepare
from prune_nas.search.work import Result, Training, Workplace
from prune_nas.training.loop import Epoch, Setting
from prune_nas.training.precision import Precision
from prune_nas.training.team import join, receive, send, team


def follows(config: Config) -> bool:
    """Join the team, and, but in its first process, do what that orders until the run's end; whether it did.

    Raises:
        UsageError: the configuration shares trainings out in another way, too.
    """
    if join().size == 1:
        return False
    if config.storage is not None or config.devices or (config.workers or 1) > 1 or config.trials_per_device:
        raise UsageError(
            "under torchrun all processes do each training together: leave --storage, --devices, --workers and "
            "--trials-per-device out"
        )
    if team().rank == 0:
        return False
    device, data, traced = prepare(config)
    place: Workplace | None = None
    while (order := receive()) is not None:
        if place is None:
            setting = Setting(on_device(data, device), device, Precision(order["precision"]))
            place = Workplace(Config(**order["config"]), traced, setting)
        else:
            place.perform(replace(Training.from_dict(order), weights=None), lambda epoch: None)
    return True


class Together:
    """The first process's workplace: the others work beside it on each training."""

    def __init__(self, place: Workplace) -> None:
        """Let the others know in which number format all train, and by which settings."""
        self._place = place
        send({"precision": place.setting.precision.name, "config": place.config.model_dump(mode="json")})

    def perform(self, training: Training, on_epoch: Callable[[Epoch], None]) -> Result:
        """As `Workplace.perform`."""
        send(training.to_dict())
        return self._place.perform(training, on_epoch)

    def close(self) -> None:
        """Let the others go."""
        send(None)
