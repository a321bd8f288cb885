"""Who may work on a run: one process at a time, and never a dead one."""

import subprocess
import sys

import pytest

from hf_robustvit.errors import UserError
from hf_robustvit.files import CLAIM, claim, sole_run


# Claims a folder as fast as it can, and counts how often it owned it and how often it was not alone in that.
RACE = """
import contextlib, os, sys, time
from pathlib import Path
from hf_robustvit.files import claim
folder, owned, shared = Path(sys.argv[1]), 0, 0
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + 1
while time.monotonic() < end:
    with claim(folder) as is_ours:
        if is_ours:
            owned += 1
            try:
                (folder / "owner").touch(exist_ok=False)
            except FileExistsError:
                shared += 1
            else:
                time.sleep(0.0005)
                (folder / "owner").unlink()
print(owned, shared)
"""

HOLD = """
import sys, time
from pathlib import Path
from hf_robustvit.files import claim
with claim(Path(sys.argv[1])) as is_ours:
    print(is_ours, flush=True)
    time.sleep(60)
"""


def start(program, folder):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], **pipes)
    return process, process.stdout.readline().strip()


def test_one_at_a_time_and_free_again(tmp_path):
    with claim(tmp_path / "run") as first:
        with claim(tmp_path / "run") as second, claim(tmp_path / "other") as other:
            assert (first, second, other) == (True, False, True)
        with claim(tmp_path / "run") as third:  # the one who did not get it has not given it back
            assert not third
    with claim(tmp_path / "run") as again:
        assert again


def test_two_processes_never_own_one_run(tmp_path):
    racers = [start(RACE, tmp_path)[0] for _ in range(2)]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    counts = [tuple(map(int, racer.communicate(timeout=60)[0].split())) for racer in racers]
    assert sum(owned for owned, _ in counts) > 100
    assert [shared for _, shared in counts] == [0, 0]


def test_a_killed_process_loses_its_claim_at_once(tmp_path):
    process, answer = start(HOLD, tmp_path)
    assert answer == "True"
    with claim(tmp_path) as is_ours:
        assert not is_ours
    process.kill()
    process.communicate()
    with claim(tmp_path) as is_ours:
        assert is_ours


def test_a_file_that_was_left_behind_claims_nothing(tmp_path):
    (tmp_path / CLAIM).write_text("of a machine that is gone")
    with claim(tmp_path) as is_ours:
        assert is_ours


def test_an_error_in_the_block_frees_the_run(tmp_path):
    try:
        with claim(tmp_path):
            raise TimeoutError("the caller's own")
    except TimeoutError:
        pass
    with claim(tmp_path) as is_ours:
        assert is_ours


def test_a_second_run_into_an_output_folder_is_refused(tmp_path):
    with sole_run(tmp_path / "out", True):
        with pytest.raises(UserError, match="out: another run is writing there now: wait until it has ended"):
            with sole_run(tmp_path / "out", True):
                pass
        with sole_run(tmp_path / "out", False):  # another process of the same run
            pass
    with sole_run(str(tmp_path / "out"), True):
        (tmp_path / "out" / "results").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results"]
