"""How much of a network is free: slots, and the share of its macs that they govern, with every count checked.

usage: python -m tests.benchmarks.coverage OUT.jsonl [NAME...]   One line of JSON for each network, in order.
       python -m tests.benchmarks.coverage page BEFORE.jsonl NOW.jsonl   The page of both, on stdout.

A layer is governed if a free slot is among its inputs or outputs. For base, narrowest and two random networks macs and
params are compared with what torch counts (`FlopCounterMode`, and the sum of `numel`).
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torchvision import models

import prune_nas as pn
from prune_nas.design.parts import size
from prune_nas.design.space import Space, Widths
from prune_nas.errors import PruneNasError
from prune_nas.nets.models import MODELS

TIMM = (
    "beit_base_patch16_224", "botnet26t_256", "cait_xxs24_224", "coatnet_nano_cc_224", "convit_tiny",
    "convmixer_768_32", "convnext_atto", "convnextv2_atto", "crossvit_tiny_240", "cs3darknet_s", "cspresnet50",
    "darknet53", "deit_tiny_patch16_224", "densenet121", "dla34", "dm_nfnet_f0", "dpn68", "eca_nfnet_l0",
    "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0", "efficientnet_b0", "efficientvit_b0",
    "efficientvit_m0", "ese_vovnet19b_dw", "fastvit_t8", "fbnetc_100", "focalnet_tiny_srf", "gcresnet33ts",
    "gernet_s", "ghostnet_100", "ghostnetv2_100", "gmixer_12_224", "gmlp_ti16_224", "halonet26t", "hardcorenas_a",
    "haloregnetz_b", "hgnet_tiny", "hrnet_w18_small", "inception_next_tiny", "inception_v4", "lambda_resnet26t",
    "lcnet_050", "levit_128", "maxvit_nano_rw_256", "mixer_b32_224", "mixnet_s", "mnasnet_050", "mobilenetv1_100",
    "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv4_conv_small", "mobileone_s0", "mobilevit_xxs",
    "mobilevitv2_050", "mvitv2_tiny", "nest_tiny", "nf_regnet_b0", "nfnet_l0", "pit_ti_224", "poolformer_s12",
    "pvt_v2_b0", "regnetx_002", "regnety_002", "regnetz_b16", "repghostnet_050", "repvgg_a0", "repvit_m0_9",
    "res2net50_14w_8s", "resmlp_12_224", "resnest14d", "resnet18", "resnet50", "resnetv2_50", "resnext50_32x4d",
    "rexnet_100", "selecsls42b", "semnasnet_075", "senet154", "seresnet18", "skresnet18", "spnasnet_100",
    "starnet_s1", "swiftformer_xs", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "tf_efficientnet_b0",
    "tiny_vit_5m_224", "tinynet_e", "tresnet_m", "twins_pcpvt_small", "vgg11_bn", "visformer_tiny",
    "vit_tiny_patch16_224", "vovnet39a", "wide_resnet50_2", "xception41", "xcit_nano_12_p16_224",
)  # fmt: skip
EVERY = (
    *MODELS, *(f"torchvision:{name}" for name in models.list_models(module=models)), *(f"timm:{name}" for name in TIMM)
)  # fmt: skip


def row(name: str) -> dict[str, Any]:
    """What is known of one network."""
    start = time.perf_counter()
    for shape in ((3, 64, 64), None) if ":" in name else (None,):  # small images first: they keep the survey short
        try:
            traced = pn.trace(name, input_shape=shape)
            break
        except PruneNasError as error:
            said = str(error).partition("\n")[0]
    else:
        return {"network": name, "refused": said}
    space, seconds = traced.space, time.perf_counter() - start
    dice = random.Random(1)
    drawn = [
        Widths({s.name: dice.randrange(s.floor, s.ceiling + 1, s.multiple) for s in space.slots}) for _ in range(2)
    ]
    wrong = [widths.digest for widths in (space.base, space.narrowest, *drawn) if not exact(traced, widths)]
    base, least = space.cost(space.base), space.cost(space.narrowest)
    return {
        "network": name,
        "input": list(space.input_shape),
        "macs": base.macs,
        "params": base.params,
        "slots": len(space.slots),
        "governed": governed(space) / base.macs,
        "narrowest": least.macs / base.macs,
        "wrong": len(wrong),
        "seconds": round(seconds, 2),
    }


def exact(traced: Any, widths: Widths) -> bool:
    """Whether macs and params are those that torch counts."""
    from torch.utils.flop_counter import FlopCounterMode

    network = traced.build(widths, seed=0)
    network.train(mode=False).requires_grad_(requires_grad=False)  # else the counter asks for gradients
    x = torch.zeros(1, *traced.space.input_shape)
    with (
        torch.no_grad(),
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        network(x)
        torch.backends.mha.set_fastpath_enabled(before)
    told = traced.space.cost(widths)
    counted = counter.get_total_flops() // 2, sum(value.numel() for value in network.parameters())
    return counted == (told.macs, told.params)


def governed(space: Space) -> int:
    """Macs of the layers of which a free slot decides the inputs or the outputs."""
    total = 0
    for layer in space.layers:
        if any(slot is not None for slot, _ in (*layer.inputs, *layer.outputs)):
            inputs, outputs = size(layer.inputs, space.base), size(layer.outputs, space.base)
            total += layer.kernel * inputs * outputs // layer.groups * layer.positions
    return total


def page(before: Path, now: Path) -> str:
    """The table of `artifacts/results/coverage.md`."""
    old, new = (
        {one["network"]: one for one in map(json.loads, path.read_text().splitlines())} for path in (before, now)
    )
    lines = ["| network | input | macs | free widths | governed | wrong counts |", "|:--|:--|--:|--:|--:|--:|"]
    for name, one in new.items():
        was = old.get(name, {})
        size = "x".join(map(str, one.get("input", was.get("input", []))))
        macs = f"{one['macs'] / 1e6:,.0f}M" if "macs" in one else ""
        cells = (
            _change(was.get("slots", "refused"), one.get("slots", "refused")),
            _change(_percent(was), _percent(one)),
            _change(was.get("wrong", ""), one.get("wrong", "")),
        )
        lines.append(f"| {name} | {size} | {macs} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(one: dict[str, Any]) -> str:
    return f"{100 * one['governed']:.0f} %" if "governed" in one else ""


def _change(before: Any, now: Any) -> str:
    return str(now) if before == now else f"{before} -> {now}".strip()


def main() -> None:
    """Append a row for each network that the file does not hold yet."""
    if sys.argv[1] == "page":
        sys.stdout.write(page(Path(sys.argv[2]), Path(sys.argv[3])) + "\n")
        return
    out, names = Path(sys.argv[1]), sys.argv[2:] or EVERY
    done = {json.loads(line)["network"] for line in out.read_text().splitlines()} if out.exists() else set()
    for name in names:
        if name in done:
            continue
        try:
            found = row(name)
        except Exception as error:
            found = {"network": name, "crash": f"{type(error).__name__}: {error}"[:200]}
        with out.open("a") as file:
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
