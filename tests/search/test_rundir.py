"""Where a run directory lies."""

import pytest

from prune_nas.config import resolve
from prune_nas.design import files
from prune_nas.search.rundir import network_file_system, opened

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export/runs {}/far nfs4 rw 0 0
/dev/sdb1 {}/far/near ext4 rw 0 0
//host/share {}/with\\040space cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (".", None),
        ("far", "nfs4"),
        ("far/run", "nfs4"),
        ("far/near/run", None),
        ("with space/x", "cifs"),
        ("farther", None),
    ],
)
def test_a_network_file_system_is_known_by_the_innermost_mount(tmp_path, place, kind):
    assert network_file_system(tmp_path / place, MOUNTS.replace("{}", str(tmp_path))) == kind


def test_this_machine_s_own_disk_is_none(tmp_path):
    assert network_file_system(tmp_path) is None


def test_what_a_killed_write_left_goes_when_the_run_is_opened_again(tmp_path, monkeypatch):
    config, run = resolve({"model": "vgg11", "dataset": "digits"}, environment={}), tmp_path / "run"
    with opened(run, config):
        pass

    class KilledError(BaseException):
        pass

    def killed(handle):
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", killed)
        patched.setattr(files.Path, "unlink", lambda *args, **options: None)  # a kill tidies nothing
        with pytest.raises(KilledError):
            files.write_bytes(run / "checkpoints" / "trial-0.safetensors", b"half")
    (run / "checkpoints" / ".mine.txt").write_text("not ours")
    assert len(list((run / "checkpoints").iterdir())) == 2
    with opened(run, config):
        assert [path.name for path in (run / "checkpoints").iterdir()] == [".mine.txt"]
