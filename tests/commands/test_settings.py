"""Settings from flags and files."""

import errno
import json
import os
from dataclasses import dataclass, field

import pytest
import yaml

from hf_robustvit import RobustViTConfig
from hf_robustvit.commands.app import DemoArguments
from hf_robustvit.commands.evaluate import EvaluationArguments
from hf_robustvit.commands.settings import check_output_dir, exit_on_user_error, parse_settings
from hf_robustvit.errors import UserError
from hf_robustvit.masks import QualityGate, TokenCutOptions
from run_masks import MaskArguments


@dataclass
class Settings:
    model: str
    rate: float = 0.1
    classes: list[str] = field(default_factory=list)
    quick: bool = False


def parse(*arguments) -> Settings:
    return parse_settings(Settings, arguments=[str(argument) for argument in arguments])[0]


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_file_of_flags_and_flags_that_win_over_it(tmp_path, ending):
    path = tmp_path / f"settings.{ending}"
    if ending == "yaml":
        path.write_text("model: some/model\nrate: 3e-6\nclasses: [a b, c]\nquick: true\n")
    else:
        path.write_text(json.dumps({"model": "some/model", "rate": 3e-6, "classes": ["a b", "c"], "quick": True}))
    assert parse(path) == Settings("some/model", 3e-6, ["a b", "c"], True)
    assert parse(path, "--rate", "5", "--quick", "false") == Settings("some/model", 5.0, ["a b", "c"], False)


def test_help_gives_a_default_to_flags_that_have_one(capsys):
    with pytest.raises(SystemExit):
        parse_settings(EvaluationArguments, arguments=["--help"])
    required, others = capsys.readouterr().out.split("--model MODEL ")[-1].split("--baseline", 1)
    assert "--output_dir" in required and "default" not in required and "SUPPRESS" not in required
    assert "(default: None)" in others and "(default: False)" in others
    with pytest.raises(SystemExit):
        parse("--rate", "5")
    assert "the following arguments are required: --model" in capsys.readouterr().err


def test_an_unknown_flag_gets_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match="flags: there is no '--modle'. Did you mean --model"):
        parse("--model", "m", "--modle", "x")
    (tmp_path / "settings.yaml").write_text("model: m\nrats: 3\n")
    with pytest.raises(UserError, match="there is no '--rats'. Did you mean --rate"):
        parse(tmp_path / "settings.yaml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="none.yaml: the file of settings cannot be read"):
        parse(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="has lines `flag: value`, found list"):
        parse(tmp_path / "list.yaml")
    for text, sentence in {
        "a: &a [x]\nb: [*a, *a]\n": "cannot be read: line 2: write the value itself instead of an alias",
        "[" * 2000 + "]" * 2000: "the file of settings cannot be read: maximum recursion",
        "a: [\nb: 1": "cannot be read: line 2: expected ',' or ']', but got '<stream end>'$",
        "a: \0": "cannot be read: unacceptable character #x0000: special characters are not allowed in",
    }.items():
        (tmp_path / "settings.yaml").write_text(text)
        with pytest.raises(UserError, match=sentence):
            parse(tmp_path / "settings.yaml")


def test_settings_that_do_not_fit_together():
    with pytest.raises(UserError, match="do not go together: .*load_best_model_at_end"):
        parse_settings(RobustViTConfig, arguments=["--output_dir", "out", "--eval_strategy", "no"])
    with pytest.raises(UserError, match="do not go together: a b is not a valid IntervalStrategy"):
        parse_settings(RobustViTConfig, arguments=["--output_dir", "out", "--eval_strategy", "a\nb"])


def test_a_mistake_becomes_a_sentence_and_status_2(capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise UserError("--rate: give a number.")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: --rate: give a number.\n"


@pytest.mark.parametrize("reason, sentence", [((), "Stopped."), (("Stopped at step 3.",), "Stopped at step 3.")])
def test_an_interruption_becomes_a_sentence_and_status_130(capsys, reason, sentence):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise KeyboardInterrupt(*reason)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == f"\n{sentence}\n"


@pytest.mark.parametrize("path, named", [("out/results.json", "out/results.json"), (None, "A file")])
def test_a_full_disk_is_told_in_a_sentence(path, named, capsys):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {named} could not be written (No space left on device): make")


def test_other_errors_of_files_keep_their_trace():
    with pytest.raises(PermissionError), exit_on_user_error():
        raise PermissionError(errno.EACCES, "Permission denied", "out/results.json")


def test_checking_an_output_folder_leaves_nothing(tmp_path):
    check_output_dir(tmp_path)
    check_output_dir(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir .*file/new cannot be written to .*: name another folder"):
        check_output_dir(tmp_path / "file" / "new")
    with pytest.raises(UserError, match="--output .*file/new cannot be written to"):
        check_output_dir(tmp_path / "file" / "new", "output")


@pytest.mark.parametrize(
    "types, given",
    [
        ((EvaluationArguments,), {"model": "m", "dataset": ["a", "b"], "output_dir": "o", "update_card": True}),
        ((MaskArguments, TokenCutOptions, QualityGate), {"images": "i", "output_dir": "o", "min_area": 0.1}),
        ((DemoArguments,), {"model": "m", "port": 7000}),
    ],
)
def test_a_file_gives_every_script_what_its_flags_give(tmp_path, types, given):
    (tmp_path / "flags.yaml").write_text(yaml.safe_dump(given))
    flags = []
    for name, value in given.items():
        flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    assert parse_settings(*types, arguments=[str(tmp_path / "flags.yaml")]) == parse_settings(*types, arguments=flags)
