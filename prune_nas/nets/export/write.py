"""Write a spec's network in the formats asked for, and compare every file's output with the network's own."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from prune_nas.design.files import write_bytes, write_json, write_text
from prune_nas.design.preprocessing import Preprocessing
from prune_nas.errors import MissingError, PruneNasError, UsageError, unknown
from prune_nas.nets.export.python import to_python
from prune_nas.nets.form import set_mode
from prune_nas.nets.specs import load, read_spec
from prune_nas.tensors import on_host

TOLERANCE = 1e-4  # of the largest logit: how far a format's outputs may lie from the network's, in float32
_BATCH = 4


def export(
    spec: Path | str, out: Path | str, formats: Sequence[str], *, model: str | None = None
) -> dict[str, dict[str, Any]]:
    """Write the network of a spec, with the weights beside it, in each format.

    Args:
        spec: a run's `best.json`, say.
        out: a folder; made if it is not there.
        formats: of `state` (state.json, state.safetensors), `python` (model.py, model.safetensors), `onnx` (model.onnx)
            and `pt2` (model.pt2, for torch.export.load).
        model: as in `nets.specs.trace_spec`.

    Returns:
        Format -> {files, difference}: how far its outputs lie from the network's, over the largest logit.

    Raises:
        UsageError: a format is unknown or cannot express the network.
        MissingError: a package for a format is not installed, or there are no weights.
        PruneNasError: a written file computes something else than the network.
    """
    spec, out = Path(spec), Path(out)
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    content, network = read_spec(spec), load(spec, model=model)
    shape = tuple(content["input_shape"])
    x = torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = network(x)
    out.mkdir(parents=True, exist_ok=True)
    written = {}
    for name in dict.fromkeys(formats):
        files, run = FORMATS[name](network, content, out, model)
        difference = float((run(x) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
        if not difference <= TOLERANCE:
            raise PruneNasError(
                f"{files[0]} does not compute what the network does: its outputs differ by {difference:.1e} of the "
                f"largest logit, and {TOLERANCE:.0e} is allowed. Please report it"
            )
        written[name] = {"files": [str(file) for file in files], "difference": difference}
    return written


Written = tuple[list[Path], Callable[[Tensor], Tensor]]


def _state(network: nn.Module, spec: Mapping[str, Any], out: Path, model: str | None) -> Written:
    files = [out / "state.json", out / "state.safetensors"]
    write_json(files[0], dict(spec))
    write_bytes(files[1], save_tensors(on_host(network.state_dict()), _meta(spec)))
    return files, _quietly(load(files[0], model=model))


def _python(network: nn.Module, spec: Mapping[str, Any], out: Path, _: str | None) -> Written:
    name = spec["model"]
    counted = [f"{spec[kind]:,} {kind}" for kind in ("macs", "params", "classes") if isinstance(spec.get(kind), int)]
    about = f"{name} with found widths: {', '.join(counted)}."
    source, state = to_python(network, name, tuple(spec["input_shape"]), about, preprocessing_of(spec))
    files = [out / "model.py", out / "model.safetensors"]
    write_text(files[0], source)
    write_bytes(files[1], save_tensors(on_host(state), _meta(spec)))
    found = importlib.util.spec_from_file_location("_exported_model", files[0])
    if found is None or found.loader is None:
        raise PruneNasError(f"{files[0]} cannot be imported")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    made = module.Model()
    made.load_state_dict(load_file(files[1]))
    return files, _quietly(set_mode(made, training=False))


def _onnx(network: nn.Module, spec: Mapping[str, Any], out: Path, _: str | None) -> Written:
    try:
        import onnxruntime  # noqa: PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingError(f"{error.name} is not installed. Install it: pip install 'prune-nas[onnx]'") from None
    file = out / "model.onnx"
    example = torch.zeros(2, *spec["input_shape"])
    try:
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    except Exception as error:
        raise _refused("onnx", spec, error) from error
    if program is None:
        raise PruneNasError("torch.onnx.export gave no program")
    program.model.metadata_props.update(_meta(spec))
    program.save(file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [file], lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def _pt2(network: nn.Module, spec: Mapping[str, Any], out: Path, _: str | None) -> Written:
    file = out / "model.pt2"
    example = torch.zeros(2, *spec["input_shape"])
    try:
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, file)
        again = torch.export.load(file).module()
    except Exception as error:
        file.unlink(missing_ok=True)
        raise _refused("pt2", spec, error) from error
    return [file], _quietly(again)


def _refused(form: str, spec: Mapping[str, Any], error: Exception) -> UsageError:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
    return UsageError(f"torch cannot export {spec['model']} as {form}: {line}. Export it as state or python instead")


def preprocessing_of(spec: Mapping[str, Any]) -> Preprocessing | None:
    """How an image must be fed to a spec's network; None where the spec does not say.

    Raises:
        UsageError: what it says is no such thing.
    """
    said = spec.get("preprocessing")
    if not said:
        return None
    try:
        return Preprocessing.from_dict(said)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the spec's preprocessing cannot be read ({error!r}). Restore the spec from a copy") from None


def _quietly(network: nn.Module) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = network(x)
        return logits

    return run


def _meta(spec: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(spec[key]) for key in ("model", "widths", "classes", "preprocessing") if key in spec}


FORMATS: Mapping[str, Callable[[nn.Module, Mapping[str, Any], Path, str | None], Written]] = {
    "state": _state,
    "python": _python,
    "onnx": _onnx,
    "pt2": _pt2,
}
