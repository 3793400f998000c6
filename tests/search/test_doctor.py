"""What `doctor` says of optional parts."""

from prune_nas.search import doctor


def test_optional_parts_are_named_with_what_they_need(monkeypatch):
    found = doctor._extras()
    assert set(found) == {"extra onnx", "extra timm", "extra hf", "extra postgres"}
    assert "onnxruntime" in found["extra onnx"]
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: doctor._ABSENT if name == "timm" else real(name))
    assert doctor._extras()["extra timm"] == "not installed. Install it: pip install 'prune-nas[timm]'"
