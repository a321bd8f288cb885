"""What an audit leaves: audit.json, audit.html, and the text that a run ends with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_robustvit.evaluation.pictures import Example
from hf_robustvit.evaluation.results import BenchmarkResult
from hf_robustvit.files import write_json
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

NO_GAIN = (
    "What fine-tuning could gain cannot be said: other backgrounds cost nothing where nothing is right to begin with."
)


def write_audit(
    json_path: Path, page_path: Path, result: BenchmarkResult, findings: dict[str, Any], examples: Sequence[Example]
) -> dict[str, Any]:
    """Write the findings of an audit as JSON, and as one page to open in a browser.

    Args:
        json_path, page_path: The files.
        result: Of the photos as they are.
        findings: As `find` gives them, with the names of the photos `without_mask` and `left_out`.
        examples: Of its `photos`, as they are and elsewhere.

    Returns:
        What is in the JSON file.
    """
    gain = NO_GAIN if findings["reliance"] is None else gain_sentence(findings)
    told = {"verdict": findings["verdict"], "sentence": verdict_sentence(findings), "gain": gain}
    content = {name: getattr(result, name) for name in ABOUT} | told | findings
    shown = list(zip(findings["photos"], examples, strict=True))
    write_page(page_path, "audit.html", audit=content, pictures=PICTURES, differences=DIFFERENCES, photos=shown)
    write_json(json_path, content)
    return content


def verdict_sentence(findings: Mapping[str, Any]) -> str:
    """The verdict in words, with the figures it rests on and, where it is open, what so few photos can show."""
    evidence, count, fewest = _evidence(findings), findings["num_photos"], findings["fewest"]
    if findings["verdict"] == "background":
        return f"The model leans on the background: {evidence}. That is more than one in ten."
    if findings["verdict"] == "object":
        return f"The model does not lean on the background: {evidence}. Both are less than one in ten."
    if findings["reliance"] is None:
        return (
            f"The model gets none of these {count} photos right as they are, so nothing can be said about what it "
            f"decides by: check that each photo is in the folder of its class. As it is, {evidence}."
        )
    if count < fewest["background"]:
        return (
            f"These {count} photos are too few to tell whether the model leans on the background: whatever they show, "
            f"it takes at least {fewest['background']} to say that it does, and {fewest['object']} to say that it "
            f"does not. Here, {evidence}."
        )
    few = f", fewer than {fewest['object']}," if count < fewest["object"] else ""
    seen = findings["detectable_reliance"]
    power = (
        f"no loss, however large, could reliably be shown with {count} photos as varied as these"
        if seen is None
        else f"with {count} photos, only a loss of {seen:.0f} % or more would be shown to be above it in four of five "
        "audits"
    )
    absence = (
        f" At least {fewest['object']} photos are needed to say that the model does not lean on the background."
        if few
        else ""
    )
    return (
        f"These {count} photos{few} cannot tell whether the model leans on the background: {evidence}. The limit is "
        f"{findings['limit']:.0f} %; {power}.{absence}"
    )


def _evidence(findings: Mapping[str, Any]) -> str:
    """The two shares in words."""
    other, follows = findings["differences"]["other_backgrounds"], findings["follows_background"]
    change = f"rises by {follows:.0f} points" if follows >= 0.5 else "does not rise"
    following = (
        "the share of objects taken for what the model sees in that background alone "
        f"{change} {_above_zero(findings['follows_background_interval95'], 0)}"
    )
    if findings["reliance"] is None:
        return f"on backgrounds of other classes, {following}"
    lost = f"{findings['reliance']:.0f} %" if findings["reliance"] >= 0.5 else "none"
    return (
        f"on backgrounds of other classes, objects lose {lost} {_above_zero(findings['reliance_interval95'], 0)} of "
        f"the probability of their class (top-1 goes from {other['before']:.0f} to {other['after']:.0f}), and "
        f"{following}"
    )


def _above_zero(bounds: Sequence[float], digits: int) -> str:
    """An interval of a loss or a gain; where the opposite may have happened, it does not say how much."""
    rounded = (round(bound, digits) + 0.0 for bound in bounds)
    low, high = (f"{bound:.{digits}f}" if bound >= 0 else "below 0" for bound in rounded)
    return f"[{low}, {high}]" if high != "below 0" else "[below 0]"


def gain_sentence(findings: Mapping[str, Any]) -> str:
    """What fine-tuning could gain, in words."""
    other, oracle = (findings["differences"][name] for name in ("other_backgrounds", "oracle_headroom"))
    bounds = _above_zero([-bound for bound in other["interval95"][::-1]], 1)
    cost = (
        f"at most the {-other['difference']:.1f} points of top-1 {bounds} that they cost now"
        if other["difference"] <= -0.05
        else f"nothing, because they cost no top-1 now {bounds}"
    )
    (low, high), headroom = oracle["interval95"], round(oracle["difference"], 1) + 0.0
    here = "something" if low > 0 else "little" if high > 0 else "nothing"
    return (
        f"What fine-tuning could gain: where backgrounds are unusual, {cost}; on photos like these, {here}: attention "
        f"to the object only, as the oracle makes it, changes top-1 by {headroom:+.1f} points "
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
