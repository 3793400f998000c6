"""optuna-dashboard shows our studies: the journal of a run, as the README says."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

DEADLINE = 60


@pytest.fixture
def dashboard(searched):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    server = subprocess.Popen([program, searched / "study.journal", "--host", "127.0.0.1", "--port", str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(10)


def asked(url):
    """What the server answers, once it does."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            with urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server
                return json.load(answer)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_it_lists_both_rungs_with_every_trial_s_widths(dashboard, searched):
    studies = asked(f"{dashboard}/api/studies")["study_summaries"]
    assert [one["study_name"] for one in studies] == ["macs=0.4", "macs=0.4 finalists"]
    trials = asked(f"{dashboard}/api/studies/{studies[0]['study_id']}")["trials"]
    attributes = [{a["key"] for a in trial["user_attrs"]} for trial in trials]
    assert len(trials) >= 4
    assert all("widths" in names for names in attributes)
