"""Where a run directory lies."""

import pytest

from prune_nas.search.rundir import network_file_system

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
