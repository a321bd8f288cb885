"""Finding and reading the files of a model: a folder, a repository on the Hub, or one that comes with the package."""

import contextlib
import difflib
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from httpx2 import ConnectError, ConnectTimeout
from huggingface_hub import (
    _CACHED_NO_EXIST,
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_robustvit.errors import UserError, first_line, unknown_name
from hf_robustvit.files import read_json
from hf_robustvit.paper import MODELS


CONNECT_SECONDS = 5
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

_EMBEDDED = {"cutouts-vit": Path(__file__).parents[1] / "cutouts" / "assets" / "cutouts-vit"}
# The paper's models and the embedded ones: suggested when a name is not found.
KNOWN_MODELS = (*(names[0] for names in MODELS.values()), *_EMBEDDED)


def model_source(name: str) -> str:
    """What `from_pretrained` must be given for a model's name: the name itself, or the folder of an embedded model."""
    return str(_EMBEDDED.get(name, name))


def find_model_file(
    name: str, filename: str, revision: str | None = None, known: Sequence[str] = KNOWN_MODELS
) -> Path | None:
    """A file of a model, downloaded if need be; None if the model has no such file.

    Args:
        name: A folder, a Hub id, or the name of an embedded model.
        filename: For example "config.json".
        revision: Branch, tag or commit on the Hub.
        known: Names that are suggested where there is no such model.

    Raises:
        UserError: If there is no such model or revision, it is gated, or the Hub cannot be reached.
    """
    folder = Path(model_source(name))
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"--model: {name!r} is a folder and has no revision {revision!r}: leave the revision out.")
        return folder / filename if (folder / filename).is_file() else None
    if folder.is_file():
        raise UserError(f"--model: {name!r} is a file: give the folder that holds it.")
    if not constants.HF_HUB_OFFLINE and difflib.get_close_matches(name, _EMBEDDED, cutoff=0.8):
        raise unknown_name("--model", name, _EMBEDDED)
    try:
        cached = try_to_load_from_cache(name, filename, revision=revision)
        if constants.HF_HUB_OFFLINE and isinstance(cached, str):
            return Path(cached)
        if not constants.HF_HUB_OFFLINE and not isinstance(cached, str):
            _check_connection(hf_hub_url(name, filename, revision=revision))
        return Path(hf_hub_download(name, filename, revision=revision))
    except RemoteEntryNotFoundError:
        return None
    except GatedRepoError as error:
        raise UserError(
            f"--model: {name!r} is gated: accept its terms on its page on the Hub and log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"--model: {name!r} has no revision {revision!r}: give a branch, tag or commit.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise unknown_name("--model", name, _names_to_suggest(name, known)) from error
    except (LocalEntryNotFoundError, ConnectError, ConnectTimeout) as error:
        if cached is _CACHED_NO_EXIST:  # the cache also remembers which files the Hub said a model does not have
            return None
        raise _not_downloaded(name, filename, error.__cause__, known) from error
    except HfHubHTTPError as error:
        raise _not_downloaded(name, filename, error, known) from error


def read_model_config(name: str, revision: str | None = None, known: Sequence[str] = KNOWN_MODELS) -> dict[str, Any]:
    """The parsed config.json of a model; arguments and errors are those of `find_model_file`."""
    config_file = find_model_file(name, "config.json", revision, known)
    if config_file is None and find_model_file(name, "open_clip_config.json", revision, known):
        raise UserError(
            f"--model: {name!r} is a checkpoint of open_clip without transformers' config.json: give one that "
            "transformers reads, for example openai/clip-vit-base-patch16 or laion/CLIP-ViT-B-16-laion2B-s34B-b88K."
        )
    if config_file is None:
        raise UserError(f"--model: {name!r} holds no config.json, so it is not a saved model.")
    with reading_model(str(config_file)):
        config = read_json(config_file)
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}, not settings")
    return config


def weights_to_download(name: str, revision: str | None = None) -> int:
    """The size in bytes of a model's weights on the Hub; 0 where they are on this machine already.

    Raises:
        UserError: The Hub does not say.
    """
    if Path(model_source(name)).is_dir():
        return 0
    cached = [try_to_load_from_cache(name, file, revision=revision) for file in _WEIGHTS]
    if any(isinstance(path, str) for path in cached):
        return 0
    try:
        files = HfApi().model_info(name, revision=revision, files_metadata=True).siblings
    except (HTTPError, OSError) as error:
        raise _not_downloaded(name, "list of files", error) from error
    sizes = [sum(file.size or 0 for file in files if file.rfilename.endswith(end)) for end in (".safetensors", ".bin")]
    return sizes[0] or sizes[1]


def _check_connection(url: str) -> None:
    """Ask once: a download retries for half a minute before it gives up. Answers are left to it."""
    try:
        get_hf_file_metadata(url, timeout=CONNECT_SECONDS)
    except (ConnectError, ConnectTimeout):
        raise
    except HTTPError:
        pass


def commit_of(name: str, revision: str | None = None) -> str | None:
    """The commit of a model that was loaded from the Hub, and so is in the cache; None for any other.

    Args:
        name: The model as it was loaded.
        revision: As it was asked for.
    """
    if Path(name).is_dir():
        return None
    config_file = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(config_file).parent.name if isinstance(config_file, str) else None


def _not_downloaded(
    name: str, filename: str, cause: BaseException | None, known: Sequence[str] = KNOWN_MODELS
) -> UserError:
    if isinstance(cause, HfHubHTTPError):  # the Hub answered
        return UserError(f"--model: the Hub did not give {filename} of {name!r}: {first_line(cause)}")
    offline = "HF_HUB_OFFLINE forbids asking the Hub" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
    reason = f"there is no such folder, its {filename} is not in the local cache, and {offline}"
    if name in known:
        return UserError(f"--model: {name!r} cannot be loaded: {reason}.")
    return UserError(f"{unknown_name('--model', name, _names_to_suggest(name, known))} ({reason})")


def _names_to_suggest(name: str, known: Sequence[str]) -> list[str]:
    """Known models, and the models saved beside a path that was not found."""
    return [*(str(path.parent) for path in sorted(Path(name).parent.glob("*/config.json"))), *known]


@contextlib.contextmanager
def reading_model(name: str) -> Iterator[None]:
    """Report a problem with a model's files as a `UserError` that names the model."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise UserError(
            f"--model: the weights of {name!r} are a pickle of more than tensors, which could run code and was not "
            "read: save the model as safetensors."
        ) from error
    except UserError:
        raise
    except ImportError as error:  # SigLIP's tokenizer: "SiglipTokenizer requires the SentencePiece library but ..."
        wanted = first_line(error).partition(".")[0]
        raise UserError(f"--model: {name!r} needs a package that is missing here: {wanted}.") from error
    except Exception as error:  # on broken files transformers and tokenizers raise almost anything
        kind = f"{type(error).__name__}: " if isinstance(error, (LookupError, TypeError, AttributeError)) else ""
        raise UserError(f"--model: {name!r} cannot be read: {kind}{first_line(error)}") from error
