"""What a comparison of pruning methods compares: a method at a ratio, and what became of a network under it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from prune_nas.design import family
from prune_nas.design.budget import Limits
from prune_nas.design.ledger import scratch_b_epochs
from prune_nas.design.patterns import pattern_of
from prune_nas.design.projection import project
from prune_nas.design.rules import apply, fit, taper_widths
from prune_nas.design.space import Cost, Space, Widths
from prune_nas.errors import PruneNasError, UsageError


class Case(NamedTuple):
    """A method and its ratio; as text `slimming=0.5`, which stands where a search has its budget."""

    method: str
    ratio: str

    def __str__(self) -> str:
        return f"{self.method}={self.ratio}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """The case that is written as `method=ratio`; numbers are brought into one form.

        Raises:
            UsageError: it is not written so.
        """
        method, sign, ratio = text.strip().partition("=")
        if not (method and sign and ratio):
            raise UsageError(f"a case is written method=ratio, such as slimming=0.5. Got {text!r}")
        try:
            return cls(method.strip(), f"{float(ratio):g}")
        except ValueError:
            return cls(method.strip(), ratio.strip())


@dataclass(frozen=True, slots=True)
class Net:
    """What one method left of one trained network: a line of `pruned.json`.

    Attributes:
        case: `method=ratio`.
        seed: of the network that was pruned.
        widths: the channels left; None where single weights went.
        kept: layer -> weights left at each place of its kernels; None where channels went.
        masks: the digest of the masks; empty where channels went.
        floored: the slots that the method alone would have left below their floor.
        removed: the share that went in fact.
        unit: what it is a share of: `channels`, `blocks` or `weights`.
    """

    case: str
    seed: int
    widths: Widths | None
    kept: Mapping[str, tuple[int, ...]] | None
    masks: str
    floored: tuple[str, ...]
    removed: float
    unit: str = "channels"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `pruned.json`."""
        return {**asdict(self), "widths": self.widths and dict(self.widths)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Net:
        """The inverse of `to_dict`.

        Raises:
            PruneNasError: it is not.
        """
        try:
            widths, kept = data["widths"], data["kept"]
            return cls(
                case=str(data["case"]),
                seed=int(data["seed"]),
                widths=widths and Widths(widths),
                kept=kept and {layer: tuple(map(int, places)) for layer, places in kept.items()},
                masks=str(data["masks"]),
                floored=tuple(data["floored"]),
                removed=float(data["removed"]),
                unit=str(data["unit"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PruneNasError(f"pruned.json is damaged ({error!r}). Delete it to have it written anew") from error


def rivals(
    space: Space, pruned: Widths, *, wanted: Collection[str], randoms: int, seed: int
) -> dict[str, list[Widths]]:
    """Arm -> widths that a pruned net has to beat, with its macs and its params.

    `uniform@macs` and `uniform@params` match one of the two each; guided (the stage means of the pruned widths), taper
    and random fill both. Where whole blocks went, the pruned net may be cheaper than any without holes: an arm that
    even the narrowest network would be too dear for is not there.

    Args:
        space: of all.
        pruned: what a method left.
        wanted: arms; `uniform` stands for both uniform nets.
        randoms: random shapes.
        seed: of the random shapes.
    """
    even, cost = dict.fromkeys(space.by_name, 1.0), space.cost(pruned)
    both = Limits((("macs", cost.macs), ("params", cost.params)))
    made: dict[str, list[Widths]] = {}
    narrowest = space.cost(space.narrowest)
    fits = both.admits(narrowest)
    if fits and "guided" in wanted:
        made["guided"] = [apply(fit("stage-mean", [pattern_of(space, pruned)]).rule, space, both)]
    if "uniform" in wanted:
        for kind in ("macs", "params"):
            limits = Limits(((kind, cost.of(kind)),))
            if limits.admits(narrowest):
                made[f"uniform@{kind}"] = [project(space, even, limits)]
    if fits and "taper" in wanted:
        made["taper"] = [taper_widths(space, both)]
    if fits and "random" in wanted:
        made["random"] = [family.random_widths(space, both, seed + i) for i in range(randoms)]
    return made


def lasting(schedule: str, cost: Cost, base: Cost, *, epochs: int, tuning: int, cap: float | None, add: bool) -> int:
    """The epochs of a training of a pruned net.

    Args:
        schedule: `fine-tune`, `rewind`, `scratch-e` or `scratch-b`.
        cost: of the net.
        base: of the unpruned network.
        epochs: the base's.
        tuning: of fine-tuning.
        cap: scratch-b takes at most so many times the base's epochs: 2 in the paper's ImageNet code; None for no cap.
        add: whether scratch-b is given the epochs of fine-tuning as well: K1 * F1 / F2 + K2 (Wang et al. 2023), since
            the pruned network's training took both.
    """
    if schedule == "fine-tune":
        return tuning
    if schedule != "scratch-b":
        return epochs
    longer = scratch_b_epochs(epochs, base.macs, cost.macs)
    if cap is not None:
        longer = min(longer, int(cap * epochs))
    return longer + (tuning if add else 0)
