"""Pushing a finished model, or results about one, to the Hub; a push that fails costs nothing but the push."""

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from hf_robustvit.errors import UserError, first_line
from hf_robustvit.files import CARD, EVAL_RESULTS, RESULTS
from hf_robustvit.record import TRAINING_RECORD
from hf_robustvit.terminal import command_line


if TYPE_CHECKING:
    from hf_robustvit.config import RobustViTConfig

logger = logging.getLogger(__name__)

# What a stranger needs to use and trust the model. It lists what is pushed rather than what is left out, because an
# output folder also holds optimizer states, pickles and logs, and anything else its owner put there.
PUSHED_FILES = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "preprocessor_config.json",
    *("tokenizer.json", "tokenizer_config.json"),  # of a CLIP-type model
    TRAINING_RECORD,
    CARD,
    "relevance.png",
    f"{RESULTS}/*.json",
    f"{EVAL_RESULTS}/*.yaml",
)
# Seconds before a push is tried again: `huggingface_hub` repeats its uploads itself, but not the final commit.
WAITS = (1, 5)


@dataclass(frozen=True)
class HubRepository:
    """A model's repository on the Hub.

    Attributes:
        name: "<user or organization>/<name>", or just the name for a repository of the token's owner.
        token: A token with write access; None takes HF_TOKEN or that of `hf auth login`.
        private: Whether it is private when it is new; None leaves that to the Hub.
        revision: The branch that is pushed to; None is the main branch.
    """

    name: str
    token: str | None = field(default=None, repr=False)
    private: bool | None = None
    revision: str | None = None

    @classmethod
    def of(cls, config: "RobustViTConfig") -> "HubRepository | None":
        """Where a fine-tuning run pushes to; None where it does not.

        Raises:
            UserError: `hub_strategy` asks for pushes before the model is finished.
        """
        if not config.push_to_hub:
            return None
        if config.hub_strategy != "end":
            raise UserError(
                f"--hub_strategy is {config.hub_strategy.value}, but the model is pushed once, when it is finished: "
                "leave the flag out."
            )
        name = config.hub_model_id or Path(config.output_dir).resolve().name
        return cls(name, config.hub_token, config.hub_private_repo, config.hub_revision)

    def create(self, folder: str | os.PathLike) -> None:
        """Create the repository if it is not there; done before the work, so that a mistake shows at once.

        Args:
            folder: What will be pushed, for the message.

        Raises:
            UserError: The Hub refuses or cannot be reached.
        """
        try:
            _persistently(HfApi().create_repo, self.name, token=self.token, private=self.private, exist_ok=True)
        except (HTTPError, OSError, ValueError) as error:
            raise UserError(
                f"Nothing can be pushed to {self.name!r}: {self._reason(error)}. Leave --push_to_hub out, and push "
                f"later with: {self.push_command(folder)}"
            ) from error

    def push(self, folder: str | os.PathLike, commit_message: str) -> None:
        """Upload what belongs to a model (`PUSHED_FILES`) in one commit.

        Args:
            folder: The model's folder; it is left as it is.
            commit_message: First line of the commit.

        Raises:
            UserError: It is not a model's folder, or the push failed; the message then gives the reason and the
                command that repeats the push.
        """
        if not Path(folder, CARD).is_file():
            raise UserError(f"{folder} has no {CARD}, so no fine-tuning run wrote it: name the output folder of one.")
        api = HfApi()
        try:
            # The full name, including the user's where it was left out.
            url = _persistently(api.create_repo, self.name, token=self.token, private=self.private, exist_ok=True)
            _persistently(
                api.upload_folder,
                repo_id=url.repo_id,
                folder_path=folder,
                allow_patterns=list(PUSHED_FILES),
                commit_message=commit_message,
                token=self.token,
                revision=self.revision,
            )
        except (HTTPError, OSError, ValueError) as error:
            raise UserError(
                f"All files are whole in {folder}, but they were not pushed to {self.name!r}: {self._reason(error)}. "
                f"Push them again with: {self.push_command(folder)}"
            ) from error
        logger.info("Pushed to %s", url)

    def fetch_card(self, folder: Path) -> None:
        """Download the model's card and results, if it has any, into a folder.

        Raises:
            UserError: They cannot be downloaded.
        """
        try:
            snapshot = Path(
                snapshot_download(
                    self.name, revision=self.revision, token=self.token, allow_patterns=[CARD, f"{RESULTS}/*.json"]
                )
            )
        except (HTTPError, OSError, ValueError) as error:
            raise UserError(
                f"--push_to_hub: the card of {self.name!r} cannot be read: {self._reason(error)}."
            ) from error
        shutil.rmtree(folder / RESULTS, ignore_errors=True)  # of an earlier push
        (folder / RESULTS).mkdir(parents=True)
        for path in (snapshot / CARD, *snapshot.glob(f"{RESULTS}/*.json")):
            if path.is_file():
                shutil.copyfile(path, folder / path.relative_to(snapshot))

    def push_command(self, folder: str | os.PathLike) -> str:
        """The command that pushes a folder here."""
        flags = (["--revision", self.revision] if self.revision else []) + (["--private"] if self.private else [])
        return command_line("push", folder, self.name, *flags)

    def _reason(self, error: Exception) -> str:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if isinstance(error, HFValidationError):
            return "this is not a valid name for a repository: <user>/<name>, of letters, digits, '-', '_' and '.'"
        if status == 401 or isinstance(error, LocalTokenNotFoundError):
            return "the Hub rejected your token (401): log in with `hf auth login`, or set HF_TOKEN"
        if status == 403:
            return "the token may not write there (403): give a name of your own, or a token with write access"
        if status == 404:
            return f"there is no such repository or revision {self.revision or 'main'} (404)"
        if isinstance(error, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE forbids asking the Hub"
        if isinstance(error, JSONDecodeError):
            return "the Hub sent an unexpected answer"
        detail = first_line(error)
        if isinstance(error, HTTPError) and status is None:
            return f"the Hub cannot be reached, or the connection broke ({detail})"
        return detail


def push_dataset(folder: str | os.PathLike, name: str, private: bool) -> None:
    """Upload a data set in one commit.

    Args:
        folder: What is uploaded, whole.
        name: The repository, <user>/<name>; it is made if it is missing.
        private: Whether it is private when it is new.

    Raises:
        UserError: The push failed.
    """
    api, commit_message = HfApi(), "Data set in Parquet"
    try:
        url = _persistently(api.create_repo, name, repo_type="dataset", private=private, exist_ok=True)
        where = {"repo_id": url.repo_id, "repo_type": "dataset"}
        _persistently(api.upload_folder, folder_path=folder, commit_message=commit_message, **where)
    except (HTTPError, OSError, ValueError) as error:
        raise UserError(
            f"--push_to_hub: the data set was not pushed to {name!r}: {HubRepository(name)._reason(error)}. With "
            f"--output DIR the files are kept, and pushed again with: hf upload {name} DIR --repo-type dataset"
        ) from error
    logger.info("Pushed to %s", url)


def _persistently(call: Callable[..., Any], *args, **kwargs) -> Any:
    """Call, and retry when the Hub stumbles: server errors and broken connections are often brief."""
    for wait in WAITS:
        try:
            return call(*args, **kwargs)
        except (HTTPError, JSONDecodeError) as error:  # the latter when the client takes an error page for an answer
            if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                raise
            logger.warning("Asking the Hub failed (%s); trying again.", first_line(error))
            time.sleep(wait)
    return call(*args, **kwargs)
