"""The floors of CONTRIBUTING.md: who may import whom, and how large a room may be."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import hf_robustvit


ROOT = Path(__file__).parents[1]
PACKAGES = ("hf_robustvit", "dataset_scripts")
MOST_MODULES, MOST_LINES = 9, 400


def floors() -> list[list[str]]:
    """The rooms of CONTRIBUTING.md from the highest floor down, as paths from the root; `*` as in a glob."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ {6,}(\S.*)$", text[text.index("The folders are rooms") :], re.MULTILINE)
    rooms, below = [], ""
    for line in lines:
        names = re.split(r" {2,}", line)[0].split()
        if names == ["hf_robustvit/"]:
            below = "hf_robustvit/"
        else:
            rooms.append([below + name for name in names])
    return rooms


def modules() -> dict[str, Path]:
    """The project's modules by their dotted names."""
    files = [
        *ROOT.glob("run_*.py"),
        ROOT / "app.py",
        *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")),
    ]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def floor_of(path: Path) -> int | None:
    """The floor of a file, 0 being the highest; None for `__init__` and `__main__` of the package."""
    relative = path.relative_to(ROOT)
    for number, names in enumerate(floors()):
        for name in names:
            if relative.is_relative_to(name.rstrip("/")) or relative.match(name) and "/" not in str(relative):
                return number
    return None


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The project's modules that a module imports, anywhere in it, those for type checkers alone apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import: name the module in full"
            for alias in node.names:
                if node.module == "hf_robustvit" and alias.name in hf_robustvit._HOMES:  # loaded on first use
                    names.add(hf_robustvit._HOMES[alias.name])
                submodule = f"{node.module}.{alias.name}"
                names.add(submodule if submodule in known else node.module)
    return names & known.keys()


def test_every_room_stands_on_a_floor():
    entrances = {"hf_robustvit", "hf_robustvit.__main__"}
    assert {name for name, path in modules().items() if floor_of(path) is None} == entrances
    for names in floors():
        for name in names:
            assert list(ROOT.glob(name.rstrip("/"))), f"CONTRIBUTING.md lists {name}, which is not there"


def test_nothing_imports_upward():
    known = modules()
    for name, path in known.items():
        own = floor_of(path)
        for imported in imports(path, known) if own is not None else ():
            other, is_same_room = floor_of(known[imported]), known[imported].parent == path.parent
            assert other is None or own < other or (own == other and is_same_room), f"{name} imports {imported}"


def test_nothing_imports_a_script():
    known = modules()
    for name, path in known.items():
        assert not [other for other in imports(path, known) if "." not in other and other not in PACKAGES], name


def test_the_data_sets_know_no_model():
    known, allowed = modules(), r"hf_robustvit\.(builders|data|cutouts|errors|files|imagenet_classes)\b"
    for name, path in known.items():
        if name.startswith("hf_robustvit.builders"):
            assert all(re.match(allowed, imported) for imported in imports(path, known)), name


def test_reporting_runs_no_model():
    runs_models = r"import torch|from torch|hf_robustvit\.(relevance|models\.loading)\b|import .*\bexplain_"
    for path in (ROOT / "hf_robustvit/reporting").glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        lines = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [line for line in lines if re.search(runs_models, line)], path


def test_no_modules_import_each_other_in_a_circle():
    known = modules()
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_rooms_stay_small():
    top = [path.stem for path in (ROOT / "hf_robustvit").glob("*.py") if not path.stem.startswith("__")]
    assert len(top) <= MOST_MODULES, top
    for path in modules().values():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, path
    for script in (*ROOT.glob("run_*.py"), ROOT / "app.py"):
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 40, script
