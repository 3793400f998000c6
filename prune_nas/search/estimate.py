"""How long a run will take, asked of this machine before the work begins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from prune_nas.design.projection import project
from prune_nas.design.space import Widths
from prune_nas.training.loop import is_out_of_memory, place
from prune_nas.training.precision import synchronise

if TYPE_CHECKING:
    from prune_nas.search.experiment import Experiment
    from prune_nas.search.pipeline import Search
    from prune_nas.search.progress import View

_PROBES = 4


def announce(job: Search, view: View) -> None:
    """Say what the run will do, and about how long it will take, from a few real training steps."""
    config, space = job.config, job.space
    base = space.cost(space.base)
    view.say(
        f"{space.model} on {job.setting.data.name}, preset {config.preset}: base {base.macs / 1e6:.1f}M macs, "
        f"{base.params / 1e6:.2f}M params, {len(space.slots)} slots; {len(job.setting.data.train)} training and "
        f"{len(job.setting.data.val)} validation images; run directory {job.run.path}"
    )
    for said in dict.fromkeys(prior.remark for prior in job.priors.values() if prior.remark):
        view.say(f"prior: {said}")
    if not job.scored:
        view.say(
            "no supernet is trained: the widths come from the prior, so the arms pruned, guided and inherited and the "
            "files scores.safetensors, supernet.safetensors and rule.json are absent"
        )
    if "inherited" in config.arms and any(slot.shuffled for slot in space.slots):
        view.say("the inherited arm is left out: this network shuffles its channels, so that none can be followed")
    try:
        seconds = _seconds(job)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        view.say(f"estimate: none, since the widest network does not fit into memory at batch {job.batch}")
        return
    workers, _ = job.size
    beside = f" with {workers} trainings beside each other" if workers > 1 else ""
    view.say(
        f"estimate: about {spoken(seconds)}{beside} if nothing is done yet; stop at any time, the same command resumes"
    )


def _seconds(job: Search) -> float:
    """The supernet alone with every thread, then everything else on as many workers as there are."""
    config, space = job.config, job.space
    workers, threads = job.size
    total = (
        seconds_per_image(job, space.widest, torch.get_num_threads()) * config.supernet_epochs if job.scored else 0.0
    )
    if "base" in config.arms:
        total += seconds_per_image(job, space.base, threads) * config.seeds * config.epochs / workers
    base_macs = space.cost(space.base).macs
    for limits in job.limits.values():
        even = project(space, {slot.name: 1.0 for slot in space.slots}, limits)
        absent = {"base", *([] if job.priors else ["transferred"]), *([] if job.studied else ["found"])}
        several = 2 if len(limits.bounds) == 1 else 1
        kinds = sum(several if arm == "uniform" else 1 for arm in config.arms if arm not in absent)
        kinds += config.randoms - 1 if "random" in config.arms else 0
        stretch = base_macs / space.cost(even).macs
        epochs = config.epochs * sum(stretch if s == "scratch-b" else 1 for s in config.schedules)
        rung = config.finalists > 0 and config.trials > 0
        second = (config.finalists + 1) * config.finalist_seeds * config.epochs if rung else 0
        study = config.trials * config.trial_epochs + second
        total += seconds_per_image(job, even, threads) * (study + kinds * config.seeds * epochs) / workers
    evaluation = len(job.setting.data.val) / (3 * len(job.setting.data.train))
    return total * len(job.setting.data.train) * (1 + evaluation)


def seconds_per_image(job: Experiment, widths: Widths, threads: int) -> float:
    """Seconds per training image of a network on so many threads, the fastest of a few steps."""
    setting = job.setting
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    network = place(job.traced.build(widths, seed=0), setting.device)
    network.train()
    x, y = next(iter(setting.data.train.batches(job.batch, device=setting.device)))
    best = float("inf")
    for _ in range(_PROBES):
        start = time.perf_counter()
        with setting.precision.autocast(setting.device):
            loss = F.cross_entropy(network(x), y)
        loss.backward()
        synchronise(setting.device)
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(before)
    return best / len(y)


def spoken(seconds: float) -> str:
    """A time as one says it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
