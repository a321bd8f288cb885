"""One run, one process: claims in a shared folder, for processes on one machine or on many."""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path


CLAIM = "claimed.json"
HEARTBEAT = 20.0  # seconds between two signs of life
SILENCE = 300.0  # seconds without one after which a claim is void; clocks of machines may differ by a little


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Claim a run's folder while the block runs.

    The claim is a file that only one process can create. Its time of change is renewed by a thread, so the claim of a
    process that was killed, or whose machine is gone, falls silent and is taken over.

    Args:
        folder: The run's folder; made if it is missing.

    Yields:
        Whether the folder is this process's. If not, another one works on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CLAIM
    if _is_void(path):
        with contextlib.suppress(FileNotFoundError):  # another process was first
            # Renamed, not deleted: of several processes that see the void claim one succeeds.
            buried = path.rename(path.with_name(f"void-{uuid.uuid4().hex}"))
            buried.unlink()
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
    except FileExistsError:
        yield False
        return
    released = threading.Event()
    thread = threading.Thread(target=_keep_alive, args=(path, released), daemon=True)
    thread.start()
    try:
        yield True
    finally:
        released.set()
        thread.join()
        path.unlink(missing_ok=True)


def _keep_alive(path: Path, released: threading.Event) -> None:
    while not released.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def _is_void(path: Path) -> bool:
    """Whether a claim's process is gone."""
    try:
        silence = time.time() - path.stat().st_mtime
        holder = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:  # being written, or left half-written
        return silence > HEARTBEAT
    if holder["host"] == socket.gethostname() and not _is_running(holder["pid"]):
        return True
    return silence > SILENCE


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
