"""One folder, one run: claims in it, for processes on one machine or on many."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from hf_robustvit.errors import UserError


CLAIM = ".claim.lock"


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


@contextlib.contextmanager
def sole_run(output_dir: str | Path, is_main_process: bool) -> Iterator[None]:
    """Claim an output folder while the block runs, in the main process for all of the run's.

    Raises:
        UserError: Another run writes there.
    """
    if not is_main_process:
        yield
        return
    with claim(Path(output_dir)) as is_ours:
        if not is_ours:
            raise UserError(
                f"--output_dir {output_dir}: another run is writing there now: wait until it has ended, or name "
                "another folder."
            )
        yield
