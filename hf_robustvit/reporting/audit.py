"""What an audit leaves: audit.json, audit.html, and the text that a run ends with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_robustvit.evaluation.audit_findings import FEWEST
from hf_robustvit.evaluation.pictures import Example
from hf_robustvit.evaluation.results import BenchmarkResult
from hf_robustvit.files import replacing
from hf_robustvit.reporting.report import write_page
from hf_robustvit.reporting.tables import interval, markdown_table


ABOUT = ("dataset", "model", "revision", "weights", "protocol", "versions")
PICTURES = {
    "top1": "The photos as they are",
    "object_alone": "The object alone, on grey",
    "background_alone": "The background alone, its object filled",
    "own_background": "The object on its own background, mirrored",
    "same_class_background": "On a background of its own class",
    "other_class_background": "On backgrounds of other classes",
    "centred": "In the middle of its own background, a fifth of the image",
    "moved": "The same in a corner",
    "shrunk": "In the middle, a twentieth of the image",
    "oracle": "As they are, attending to the object only (oracle)",
}
DIFFERENCES = {
    "other_backgrounds": "Own background, mirrored → backgrounds of other classes",
    "background_gap": "Backgrounds of other classes → of its own (ImageNet-9's BG-gap)",
    "moved": "In the middle → in a corner",
    "shrunk": "A fifth of the image → a twentieth",
    "oracle_headroom": "As they are → attending to the object only (oracle)",
}


def write_audit(
    json_path: Path, page_path: Path, result: BenchmarkResult, findings: dict[str, Any], examples: Sequence[Example]
) -> dict[str, Any]:
    """Write the findings of an audit as JSON, and as one page to open in a browser.

    Args:
        json_path, page_path: The files.
        result: Of the photos as they are.
        findings: As `find` gives them, with the names of the photos `left_out`.
        examples: Of its `photos`, as they are and elsewhere.

    Returns:
        What is in the JSON file.
    """
    told = {"verdict": findings["verdict"], "sentence": verdict_sentence(findings), "gain": gain_sentence(findings)}
    content = {name: getattr(result, name) for name in ABOUT} | told | findings
    shown = list(zip(findings["photos"], examples, strict=True))
    write_page(page_path, "audit.html", audit=content, pictures=PICTURES, differences=DIFFERENCES, photos=shown)
    with replacing(json_path) as path:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return content


def verdict_sentence(findings: Mapping[str, Any]) -> str:
    """The verdict in words, with the figures it rests on and, where it is open, what so few photos can show."""
    other, limit = findings["differences"]["other_backgrounds"], findings["limit"]
    reliance, follows = (
        f"{findings[name]:.0f} % {interval(findings[f'{name}_interval95'], 0)}"
        for name in ("reliance", "follows_background")
    )
    evidence = (
        f"on backgrounds of other classes, objects lose {reliance} of the probability of their class (top-1 goes from "
        f"{other['before']:.0f} to {other['after']:.0f}), and {follows} of them are taken for what the model sees in "
        "that background alone"
    )
    if findings["verdict"] == "background":
        return f"The model leans on the background: {evidence}. That is more than one in ten."
    if findings["verdict"] == "object":
        return f"The model does not lean on the background: {evidence}. Both are less than one in ten."
    few = f", fewer than {FEWEST['object']}," if findings["num_photos"] < FEWEST["object"] else ""
    return (
        f"These {findings['num_photos']} photos{few} cannot tell whether the model leans on the background: "
        f"{evidence}. The limit is {limit:.0f} %; in four of five audits of so many photos, a loss of "
        f"{findings['detectable_reliance']:.0f} % or more would be seen to be above it."
    )


def gain_sentence(findings: Mapping[str, Any]) -> str:
    """What fine-tuning could gain, in words."""
    other, oracle = (findings["differences"][name] for name in ("other_backgrounds", "oracle_headroom"))
    cost = [-bound for bound in other["interval95"][::-1]]
    low, high = oracle["interval95"]
    here = "something" if low > 0 else "little" if high > 0 else "nothing"
    return (
        f"What fine-tuning could gain: where backgrounds are unusual, at most the {-other['difference']:.1f} points "
        f"of top-1 {interval(cost, 1)} that they cost now; on photos like these, {here}: attention to the object "
        f"only, as the oracle makes it, changes top-1 by {oracle['difference']:+.1f} points "
        f"{interval([low, high], 1)}."
    )


def audit_summary(content: Mapping[str, Any]) -> str:
    """The figures and the verdict, for the terminal."""
    rows = [
        [title, figure["n"], figure["value"], interval(figure["interval95"])]
        for name, title in PICTURES.items()
        if (figure := content["figures"][name])
    ]
    table = markdown_table(["top-1 (%)", "photos", "value", "95 % interval"], rows)
    return "\n\n".join([table, content["sentence"], content["gain"]])
