import json

import pytest
import torch
from safetensors.torch import load_file

from prune_nas.config import Config
from prune_nas.design.records import Final, read_table
from prune_nas.nets.specs import read_spec, trace_spec
from prune_nas.search.setup import load_data, on_device
from prune_nas.training.loop import Setting, accuracy
from prune_nas.training.precision import Precision


@pytest.mark.parametrize("name", ["best", "deploy"])
def test_the_nets_that_are_named_are_there_with_the_weights_that_were_measured(searched, name):
    spec = read_spec(searched / f"{name}.json")
    deploy = json.loads((searched / "verdict.json").read_text())[0]["deploy"]
    assert spec["source"]["arm"] == {"best": "found", "deploy": deploy["arm"]}[name]
    traced, widths = trace_spec(spec)
    network = traced.build(widths, seed=9)
    network.load_state_dict(load_file(searched / f"{name}.safetensors"))
    config = Config(**json.loads((searched / "run.json").read_text())["config"])
    cpu = torch.device("cpu")
    setting = Setting(on_device(load_data(config), cpu), cpu, Precision("fp32"))
    assert accuracy(network, setting.data.val, setting) == spec["source"]["val_accuracy"]
    rows = [r for r in read_table(searched / "finals.csv", Final) if r.arm == spec["source"]["arm"]]
    assert spec["source"]["val_accuracy"] == max(r.val_accuracy for r in rows)
