"""The pruning methods that `compare` knows: what each trains, what it leaves, and with which weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from prune_nas.design.selection import Selection
from prune_nas.design.space import Space
from prune_nas.errors import UsageError
from prune_nas.pruning import l1_norm, reconstruction, regression, slimming, sss, sss_blocks, thinet
from prune_nas.pruning.norms import places
from prune_nas.pruning.ratios import keep, share_of

_NAMED = 4  # slots in one sentence
_PLACES = 1000  # at which a layer's sums are taken apart to choose its inputs
_REFIT = 2000  # at which its weights are fitted again
_SEED = 0

Choose = Callable[[Space, nn.Module, str, Tensor], Selection]
Mend = Callable[[Space, nn.Module, nn.Module, Selection, Tensor], None]
Check = Callable[[Space, nn.Module, str], object]


@dataclass(frozen=True, slots=True)
class Method:
    """A way of pruning.

    Attributes:
        about: what goes, with its source.
        penalty: what its network is trained with first: `none`, `l1` on gamma, or one of `scaling.SCALINGS`.
        check: raises UsageError where the method does not fit a network or a ratio.
        choose: the channels that stay, from the trained network and normalised images; None where single weights go.
        mend: changes the narrow network's inherited weights, in place; None where they stay as they are.
        unit: what a ratio is a share of: `channels`, `blocks` or `weights`.
    """

    name: str
    about: str
    penalty: str
    check: Check
    choose: Choose | None
    mend: Mend | None = None
    unit: str = "channels"


def _plain(prune: Callable[[Space, nn.Module, str], Selection]) -> Choose:
    return lambda space, network, ratio, images: prune(space, network, ratio)


def _reconstructing(choose: Callable[[reconstruction.Terms, int], tuple[int, ...]]) -> Choose:
    def chosen(space: Space, network: nn.Module, ratio: str, images: Tensor) -> Selection:
        found = reconstruction.terms(space, network, images, places=_PLACES, seed=_SEED)
        nothing = {slot.name: found[slot.name][0] for slot in space.slots}
        counted = keep(space, l1_norm.counts(space, ratio), nothing)
        kept = {slot.name: choose(found[slot.name], counted.widths[slot.name]) for slot in space.slots}
        return Selection(counted.widths, kept, counted.floored)

    return chosen


def _rescale(space: Space, source: nn.Module, target: nn.Module, chosen: Selection, images: Tensor) -> None:
    found = reconstruction.terms(space, source, images, places=_PLACES, seed=_SEED)
    reconstruction.rescale(space, target, found, chosen.kept)


def _refit(space: Space, source: nn.Module, target: nn.Module, chosen: Selection, images: Tensor) -> None:
    reconstruction.refit(space, source, target, chosen.kept, images, places=_REFIT, seed=_SEED)


def _predefined(space: Space, network: nn.Module, ratio: str) -> None:
    l1_norm.shares(space, ratio)


def _read(space: Space, network: nn.Module, ratio: str) -> None:
    _predefined(space, network, ratio)
    reconstruction.demand_readers(space)


def _sloped(space: Space, network: nn.Module, ratio: str) -> None:
    share_of(ratio)
    if not places(space, network):
        raise UsageError(
            f"it reads the BatchNorm behind every channel, but no free width of {space.model} has a BatchNorm. Use "
            "l1-norm, which reads the weights"
        )


def _scaled(space: Space, network: nn.Module, ratio: str) -> None:
    share_of(ratio)
    found = places(space, network)
    if bare := [slot.name for slot in space.slots if slot.name not in found]:
        raise UsageError(
            f"it reads the BatchNorm behind every channel, but {_some(bare)} of {space.model} have no BatchNorm. "
            "Use slimming or l1-norm"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _blocky(space: Space, network: nn.Module, ratio: str) -> None:
    share_of(ratio)
    sss_blocks.demand_blocks(space)


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            "l1-norm",
            "a fixed share of every layer's filters, those with the smallest L1 norm (Li et al. 2017)",
            "none",
            _predefined,
            _plain(l1_norm.prune),
        ),
        Method(
            "thinet",
            "a fixed share of every layer's channels, those that the next layer misses least (Luo et al. 2017)",
            "none",
            _read,
            _reconstructing(thinet.choose),
            _rescale,
        ),
        Method(
            "regression",
            "a fixed share of every layer's channels, those without which LASSO rebuilds the next layer's outputs "
            "(He et al. 2017)",
            "none",
            _read,
            _reconstructing(regression.choose),
            _refit,
        ),
        Method(
            "slimming",
            "the channels with the smallest gamma of the whole network, trained with L1 on it (Liu et al. 2017). Where "
            "a width has no gamma, those with the smallest weights",
            "l1",
            _sloped,
            _plain(slimming.prune),
        ),
        Method(
            "sss",
            "the channels whose scaling factor reached zero in training (Huang and Wang 2018)",
            "sss",
            _scaled,
            _plain(sss.prune),
        ),
        Method(
            "sss-blocks",
            "the residual blocks whose scaling factor reached zero in training (Huang and Wang 2018)",
            "sss-blocks",
            _blocky,
            _plain(sss_blocks.prune),
            unit="blocks",
        ),
        Method(
            "magnitude",
            "the smallest weights of all convolutions (Han et al. 2015)",
            "none",
            lambda space, network, ratio: share_of(ratio),
            None,
            unit="weights",
        ),
    )
}
"""Name -> method. A new one is a file beside this one and an entry here."""
