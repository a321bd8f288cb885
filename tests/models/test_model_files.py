"""Where a model's files come from: folders, the Hub (a local server that answers as it does) and the cache."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from loopback_hub import MAIN, LoopbackHub
from tiny_clip import save_clip
from tiny_models import tiny_model
from tiny_timm import PREPROCESSING, save_timm, timm_tensors
from transformers import ViTImageProcessorPil

from hf_robustvit.errors import UserError
from hf_robustvit.models import files as model_files
from hf_robustvit.models.files import KNOWN_MODELS
from hf_robustvit.models.loading import load_classifier


ROOT = Path(__file__).parents[2]


def save(folder, seed=0):
    tiny_model("vit", seed=seed).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def logit_sum(name, revision=None) -> float:
    model, _ = load_classifier(name, revision=revision)
    with torch.no_grad():
        return model(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)).logits.abs().sum().item()


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("google/vit-base-patch16-223", "google/vit-base-patch16-224"),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"),
        ("cutout-vit", "cutouts-vit"),
    ],
)
def test_unknown_hub_names_suggest_the_nearest(name, suggestion):
    with pytest.raises(UserError) as caught:
        load_classifier(name)
    message = str(caught.value)
    assert message.startswith(f"--model: there is no {name!r}. Did you mean ") and suggestion in message
    assert "HF_HUB_OFFLINE forbids asking the Hub" in message and "config.json is not in the local cache" in message


def test_names_like_no_other_list_the_known_ones():
    with pytest.raises(UserError) as caught:
        load_classifier("zzz")
    assert all(name in str(caught.value) for name in KNOWN_MODELS)


def test_a_known_model_that_is_not_cached_is_not_called_unknown():
    with pytest.raises(UserError, match="'google/vit-base-patch16-224' cannot be loaded: .*HF_HUB_OFFLINE") as caught:
        load_classifier("google/vit-base-patch16-224")
    assert "there is no 'google" not in str(caught.value)


@pytest.mark.parametrize("relative", [False, True])
def test_unknown_paths_suggest_the_models_beside_them(tmp_path, monkeypatch, relative):
    save(tmp_path / "runs" / "finetuned")
    monkeypatch.chdir(tmp_path)
    parent = Path("runs") if relative else tmp_path / "runs"
    with pytest.raises(UserError) as caught:
        load_classifier(parent / "finetune")
    assert str(caught.value).startswith(
        f"--model: there is no '{parent / 'finetune'}'. Did you mean {parent / 'finetuned'}"
    )


def test_a_file_instead_of_its_folder(tmp_path):
    file = save(tmp_path / "model") / "model.safetensors"
    with pytest.raises(UserError, match=f"--model: '{file}' is a file: give the folder that holds it"):
        load_classifier(file)


def test_folders_that_are_no_models(tmp_path):
    with pytest.raises(UserError, match=f"'{tmp_path}' holds no config.json, so it is not a saved model"):
        load_classifier(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json' cannot be read: Expecting property name"):
        load_classifier(tmp_path)
    (tmp_path / "config.json").write_text('["vit"]')
    with pytest.raises(UserError, match="config.json' cannot be read: it holds a list, not settings"):
        load_classifier(tmp_path)


def test_a_folder_has_no_revision(tmp_path):
    folder = save(tmp_path / "model")
    with pytest.raises(UserError, match=f"'{folder}' is a folder and has no revision 'v2'"):
        load_classifier(folder, revision="v2")


def test_folders_without_and_with_broken_weights(tmp_path):
    folder = save(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match=f"'{folder}' cannot be read: "):
        load_classifier(folder)
    weights.unlink()
    with pytest.raises(UserError, match=f"'{folder}' cannot be read: .*no file named model.safetensors"):
        load_classifier(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_timm(folder / "timm", timm_tensors(width=64, layers=1))
    save_clip(folder / "clip")
    save(folder / "vit")
    return folder


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vit/config.json", {"architectures": 1.0}),
        ("vit/config.json", {"hidden_act": ""}),
        ("vit/config.json", {"dtype": "5"}),
        ("vit/preprocessor_config.json", True),
        ("vit/preprocessor_config.json", {"image_mean": [0.5, 0.5, []]}),
        ("vit/preprocessor_config.json", {"resample": 7}),
        ("vit/preprocessor_config.json", {"rescale_factor": "x"}),
        ("clip/config.json", {"projection_dim": 1.0}),
        ("clip/tokenizer.json", None),
        ("clip/tokenizer.json", {"model": None}),
        ("clip/tokenizer_config.json", {"bos_token": " "}),
        ("timm/config.json", {"architecture": 128}),
        ("timm/config.json", {"pretrained_cfg": 128}),
        ("timm/config.json", {"pretrained_cfg": PREPROCESSING | {"crop_pct": 0}}),
    ],
)
def test_settings_that_break_transformers_are_told(models, tmp_path, name, changes):
    shutil.copytree(models, tmp_path / "models")
    path = tmp_path / "models" / name
    changed = json.loads(path.read_text()) | changes if isinstance(changes, dict) else changes
    path.write_text(json.dumps(changed))
    class_names = ["ant"] if name.startswith("clip") else None
    with pytest.raises(UserError) as caught:  # in transformers' words, which change
        load_classifier(path.parent, class_names=class_names)
    assert re.fullmatch(rf"--model: '{path.parent}' cannot be read: .*[^:\s]", str(caught.value))


class _Malicious:
    """Unpickling it creates a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, zipped):
    folder = save(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    trace = tmp_path / "ran"
    content = tiny_model("vit").state_dict() | {"extra": _Malicious(trace)}
    if zipped:
        torch.save(content, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match=f"the weights of '{folder}' are a pickle of more than tensors"):
        load_classifier(folder)
    assert not trace.exists()
    pickle.loads(pickle.dumps(content)).pop("extra").close()
    assert trace.exists()  # so it would have run


def test_a_pickle_of_tensors_loads(tmp_path):
    folder = save(tmp_path / "model")
    expected = logit_sum(folder)
    torch.save(tiny_model("vit").state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert logit_sum(folder) == expected


def test_safetensors_are_preferred_to_a_pickle(tmp_path):
    folder = save(tmp_path / "model")
    expected = logit_sum(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert logit_sum(folder) == expected


COMMITS = {"main": MAIN, "v2": "b" * 40}
REFUSED = {
    "acme/gated": (401, "GatedRepo"),
    "acme/terms-not-accepted": (403, "GatedRepo"),
    "acme/missing": (404, "RepoNotFound"),
    "acme/private": (401, "RepoNotFound"),
    "acme/disabled": (403, None),
}
# Loads each [name, revision] of its argument, and prints the logits' sum or the sentence of the error.
LOADER = """
import json, sys
sys.path[:0] = ["tests", "tests/models"]
from hf_robustvit.errors import UserError
from test_model_files import logit_sum
answers = []
for name, revision in json.loads(sys.argv[1]):
    try:
        answers.append(logit_sum(name, revision))
    except UserError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with a ViT of two revisions, one without image processor, and one of timm."""
    root = tmp_path_factory.mktemp("hub")
    save(root / "acme/tiny-vit" / COMMITS["main"], seed=0)
    save(root / "acme/tiny-vit" / COMMITS["v2"], seed=1)
    (save(root / "acme/bare-vit" / COMMITS["main"]) / "preprocessor_config.json").unlink()
    timm = root / "timm/vit_tiny_patch8_32.acme" / COMMITS["main"]
    timm.parent.mkdir(parents=True)
    save_timm(timm, timm_tensors())
    with LoopbackHub(root, branches={"acme/tiny-vit": COMMITS}, refused=REFUSED) as running:
        yield running


@pytest.fixture(scope="module")
def answers(hub):
    """What a process with access to the Hub got for each (name, revision); its cache is this process's."""
    wanted = [
        *(("acme/tiny-vit", revision) for revision in (None, "v2", COMMITS["v2"], "v3")),
        *((name, None) for name in ("acme/bare-vit", "timm/vit_tiny_patch8_32.acme", *REFUSED)),
    ]
    environment = hub.environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", LOADER, json.dumps(wanted)], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(wanted, json.loads(done.stdout), strict=True))


def test_models_and_revisions_are_loaded_from_the_hub(hub, answers):
    expected = {commit: logit_sum(hub.root / "acme/tiny-vit" / commit) for commit in COMMITS.values()}
    assert expected[COMMITS["main"]] != expected[COMMITS["v2"]]
    assert answers["acme/tiny-vit", None] == expected[COMMITS["main"]]
    assert answers["acme/tiny-vit", "v2"] == answers["acme/tiny-vit", COMMITS["v2"]] == expected[COMMITS["v2"]]
    timm = "timm/vit_tiny_patch8_32.acme"
    assert answers[timm, None] == logit_sum(hub.root / timm / COMMITS["main"])


def test_what_was_loaded_once_loads_offline(answers):
    loaded = {wanted: answer for wanted, answer in answers.items() if isinstance(answer, float)}
    assert len(loaded) == 5  # with the model that has no preprocessor_config.json, which the cache remembers
    assert {wanted: logit_sum(*wanted) for wanted in loaded} == loaded


@pytest.mark.parametrize(
    ("name", "revision", "sentence"),
    [
        ("acme/tiny-vit", "v3", "--model: 'acme/tiny-vit' has no revision 'v3': give a branch, tag or commit."),
        ("acme/gated", None, "--model: 'acme/gated' is gated: accept its terms on its page on the Hub and log in"),
        ("acme/terms-not-accepted", None, "--model: 'acme/terms-not-accepted' is gated: accept its terms"),
        ("acme/missing", None, "--model: there is no 'acme/missing'. Known names: google/vit-base-patch16-224"),
        ("acme/private", None, "--model: there is no 'acme/private'."),
    ],
)
def test_what_the_hub_refuses_is_told_in_a_sentence(answers, name, revision, sentence):
    assert answers[name, revision].startswith(sentence)
    assert "\n" not in answers[name, revision]


def test_other_errors_of_the_hub_are_passed_on(answers):
    sentence = "--model: the Hub did not give config.json of 'acme/disabled': 403 Forbidden"
    assert answers["acme/disabled", None].startswith(sentence)


def test_a_hub_that_cannot_be_reached_is_not_called_forbidden(monkeypatch):
    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(model_files, "hf_hub_download", unreachable)
    with pytest.raises(
        UserError, match="'facebook/deit-base-patch16-224' cannot be loaded: .* the Hub cannot be reached"
    ):
        load_classifier("facebook/deit-base-patch16-224")
