"""What a comparison ends with: tables, rules and verdicts of all that its run holds, from its files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from prune_nas.design.case_verdicts import unless_untrained, verdicts
from prune_nas.design.cases import Net
from prune_nas.design.files import write_json
from prune_nas.design.kernels import Kernel, average, kernel_mean
from prune_nas.design.patterns import non_uniformity, pattern_of
from prune_nas.design.records import Expense, Final, read_table, write_table
from prune_nas.design.rules import fit, to_dict
from prune_nas.design.space import Space, Widths
from prune_nas.errors import UsageError
from prune_nas.pruning import magnitude
from prune_nas.search import conclusion

if TYPE_CHECKING:
    from prune_nas.search.compare import Compare


def conclude(job: Compare) -> None:
    """Write every derived table and JSON file."""
    run, nets = job.run, list(job.nets.values())
    finals = read_table(run.file("finals.csv"), Final)
    write_table(run.file("ledger.csv"), Expense, conclusion.spent(job, finals))
    conclusion.write_widths(run, job.space, _shapes(job))
    write_json(run.file("rule.json"), list(_rules(job.space, job.kernels, nets)))
    cases = list(dict.fromkeys([*run.record["config"]["cases"], *(net.case for net in nets)]))
    unevenness = {case: _unevenness(job, case) for case in {net.case for net in nets}}
    said = verdicts(finals, nets, unevenness, {case: job.failures(case, finals) for case in cases})
    for one in said:
        one["sentences"] += _without_rivals(job, one["budget"])
    said = [unless_untrained(one, finals, job.setting.data.chance) for one in said]
    write_json(run.file("verdict.json"), said)
    conclusion.write_nets(job, said, finals)


def _without_rivals(job: Compare, case: str) -> list[str]:
    """Which of the arms that were asked for a case does not have, and why."""
    own = [net for net in job.nets.values() if net.case == case]
    if not own or own[0].unit != "blocks":
        return []
    had = {arm.partition("@")[0] for arm in set.intersection(*(set(job.arms_of(net)) for net in own))}
    missing = [arm for arm in job.config.arms if arm not in {*had, "base", "guided"}]
    said = [f"{', '.join(missing)}: no network with all blocks is as cheap as every pruned one"] if missing else []
    if "guided" in job.config.arms:
        said.append("guided is left out: which blocks went is no share of their channels")
    return said


def _shapes(job: Compare) -> dict[str, dict[str, list[Widths]]]:
    """Case -> arm -> its different widths, seed by seed."""
    found: dict[str, dict[str, list[Widths]]] = {}
    for net in job.nets.values():
        if net.widths is None:
            continue
        for arm, own in job.arms_of(net).items():
            here = found.setdefault(net.case, {}).setdefault(arm, [])
            here += [widths for widths, _ in own if widths not in here]
    return found


def _rules(space: Space, kernels: list[Kernel], nets: list[Net]) -> Iterator[dict[str, object]]:
    """For every case the rule that its nets teach: stage means, or where in 3x3 kernels weights are kept."""
    for case in dict.fromkeys(net.case for net in nets):
        own = [net for net in nets if net.case == case]
        if own[0].unit == "blocks":  # which blocks went is no share of their channels
            continue
        shapes = [pattern_of(space, net.widths) for net in own if net.widths is not None]
        if shapes:
            yield {"budget": case, **to_dict(fit("stage-mean", shapes))}
            continue
        counts = [magnitude.as_counts(net.kept or {}) for net in own]
        with contextlib.suppress(UsageError):  # a network without 3x3 kernels has no such rule
            yield {"budget": case, **average([kernel_mean(kernels, c, space.stages) for c in counts]).to_dict()}


def _unevenness(job: Compare, case: str) -> float:
    """The mean non-uniformity of a case's shapes: of widths, or of the shares that layers keep."""
    found = []
    for net in (net for net in job.nets.values() if net.case == case):
        if net.widths is not None:
            found.append(non_uniformity(pattern_of(job.space, net.widths)))
            continue
        kept = net.kept or {}
        shares = torch.tensor([sum(kept[kernel.layer]) / kernel.weights for kernel in job.kernels])
        found.append(float(shares.std(correction=0) / shares.mean()))
    return sum(found) / len(found)
