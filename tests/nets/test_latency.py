"""Latency says under which conditions it holds."""

from __future__ import annotations

import torch
from torch import nn

from prune_nas.nets.latency import compare, measure


def test_measure_names_its_conditions_and_changes_nothing():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    latency = measure(network, (3, 8, 8), batch=2, threads=1, seconds=0.02)
    assert (latency.batch, latency.threads, latency.device, latency.dtype) == (2, 1, "cpu", "float32")
    assert latency.median_ms > 0
    assert latency.iqr_ms >= 0
    assert latency.runs > 0
    assert network.training
    assert network[1].num_batches_tracked.item() == 0


def test_compare_orders_very_different_networks():
    narrow, wide = nn.Linear(8, 8), nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(4)))
    wide = nn.Sequential(nn.Linear(8, 1024), *wide)
    found = compare({"wide": wide, "narrow": narrow}, (8,), threads=1, seconds=0.1, rounds=2)
    assert found["narrow"].median_ms < found["wide"].median_ms
    assert torch.is_grad_enabled()
