"""One run, one process: claims in a shared folder, for processes on one machine or on many."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


CLAIM = "claim.lock"


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Claim a run's folder while the block runs.

    The claim is the operating system's lock (flock) on a file in the folder, which ends with the process that holds
    it, however that ends. The file itself stays and means nothing. For processes on several machines the shared file
    system must pass locks on: NFS 4 and most cluster file systems do; where one is mounted with locks of the single
    machine only (NFS `nolock`, Lustre `localflock`), let processes of one machine work on a folder.

    Args:
        folder: The run's folder; made if it is missing.

    Yields:
        Whether the folder is this process's. If not, another one works on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / CLAIM, timeout=0)
    with contextlib.suppress(Timeout):
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()
