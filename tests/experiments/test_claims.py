"""Who may work on a run: one process at a time, and never a dead one."""

import json
import os
import socket
import subprocess
import sys
import time

from hf_robustvit.experiments import claims
from hf_robustvit.experiments.claims import CLAIM, SILENCE, claim


def write_claim(folder, host, pid, silence=0.0):
    path = folder / CLAIM
    path.write_text(json.dumps({"host": host, "pid": pid}))
    os.utime(path, times=(time.time() - silence,) * 2)


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_at_a_time_and_free_again(tmp_path):
    with claim(tmp_path / "run") as first:
        with claim(tmp_path / "run") as second, claim(tmp_path / "other") as other:
            assert (first, second, other) == (True, False, True)
        assert (tmp_path / "run" / CLAIM).exists()  # the one who did not get it does not give it back
    with claim(tmp_path / "run") as again:
        assert again
    assert not list(tmp_path.rglob("*.json"))


def test_a_dead_process_of_this_machine_loses_its_claim_at_once(tmp_path):
    write_claim(tmp_path, socket.gethostname(), dead_pid())
    with claim(tmp_path) as is_ours:
        assert is_ours and json.loads((tmp_path / CLAIM).read_text())["pid"] == os.getpid()


def test_another_machine_loses_it_when_it_has_been_silent(tmp_path):
    write_claim(tmp_path, "elsewhere", 1, silence=SILENCE / 2)
    with claim(tmp_path) as is_ours:
        assert not is_ours
    write_claim(tmp_path, "elsewhere", 1, silence=SILENCE + 1)
    with claim(tmp_path) as is_ours:
        assert is_ours


def test_a_claim_is_kept_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT", 0.01)
    with claim(tmp_path):
        os.utime(tmp_path / CLAIM, times=(0, 0))
        deadline = time.time() + 10
        while (tmp_path / CLAIM).stat().st_mtime == 0 and time.time() < deadline:
            time.sleep(0.01)
        assert time.time() - (tmp_path / CLAIM).stat().st_mtime < 5


def test_a_half_written_claim_is_respected_for_a_moment(tmp_path):
    (tmp_path / CLAIM).write_text("")
    with claim(tmp_path) as is_ours:
        assert not is_ours
    os.utime(tmp_path / CLAIM, times=(0, 0))
    with claim(tmp_path) as is_ours:
        assert is_ours
