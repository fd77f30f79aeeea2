"""The house keeps its rules: who imports whom, what dvc.yaml lists, and who names a column."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from contract.params import Params, load_params

ROOT = Path(__file__).parents[1]
ROOMS = ("contract", "stages", "serve", "ops")
MAY_IMPORT = {  # beside itself
    "contract": set(),
    "stages": {"contract"},
    "serve": {"contract"},
    "ops": {"contract"},
}
MADE = ("data/", "metrics/", "models/")
SOURCE = "${data.source}"
MAY_NAME_COLUMNS = ("tests/", "notebooks/", "ops/simulate.py")
HEAVY = {"sklearn", "onnxruntime", "skl2onnx", "skops", "dvclive", "matplotlib", "mlflow"}
LIGHT_STAGES = ("ingest", "validate", "split", "approve")


def files(*patterns: str) -> list[Path]:
    """List the files that git tracks, or would track, relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    return [path for path in paths if (ROOT / path).exists()]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"), str(path))


def modules(room: str) -> list[Path]:
    return files(f"{room}/*.py")


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Name all that a file imports, wherever in it: a module, or what comes from one."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def project_files_imported(path: Path) -> set[Path]:
    """Give the project's own modules that a file imports, but for rooms' docstrings."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] in ROOMS:
            tries = (Path(*parts).with_suffix(".py"), Path(*parts[:-1]).with_suffix(".py"))
            found |= {module for module in tries if (ROOT / module).is_file()}
    return found


def with_all_it_imports(path: Path) -> set[Path]:
    done, waiting = set(), {path}
    while waiting:
        done |= waiting
        waiting = set().union(*map(project_files_imported, waiting)) - done
    return done


@cache
def pipeline() -> dict[str, dict]:
    """Give the stages of dvc.yaml; one of a `foreach` stands for all of its kind."""
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


STAGES = tuple(pipeline())


def script(stage: str) -> Path:
    return Path(f"stages/{stage}.py")


def names_of(entries: list) -> set[str]:
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def given(stage: str) -> set[str]:
    listed = pipeline()[stage]
    return set().union(*(names_of(listed.get(kind, [])) for kind in ("outs", "metrics", "plots")))


def defined(path: Path) -> dict[str, ast.AST]:
    """Give what a module defines at its top, by name."""
    found = {}
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return found


def reached(stage: str) -> Iterator[tuple[Path, str, ast.AST | None]]:
    """Walk through what a stage's script uses, in its own file and in helpers beside it.

    Gives the module, the name and its definition, which is None for names from other rooms.
    """
    start = script(stage)
    waiting = [(start, name) for name in [*defined(start), *names_from(start)]]
    done = set()
    while waiting:
        path, name = waiting.pop()
        if (path, name) in done:
            continue
        done.add((path, name))
        node = defined(path).get(name) if path.parts[0] == "stages" else None
        yield path, name, node
        for used in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if node else ():
            if used in defined(path):
                waiting.append((path, used))
            elif used in names_from(path):
                waiting.append((names_from(path)[used], used))
        if node is None and path.parts[0] == "stages" and name in names_from(path):
            waiting.append((names_from(path)[name], name))


def names_from(path: Path) -> dict[str, Path]:
    """Give the names that a file imports from other modules of the project."""
    found = {}
    for node in parsed(path).body:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ROOMS:
            source = Path(*node.module.split(".")).with_suffix(".py")
            found |= {alias.name: source for alias in node.names}
    return found


def paths_of(stage: str) -> set[str]:
    """Give the data, metrics and models that a stage's code names as constants."""
    values = (
        getattr(import_module(module_name(path)), name, None)
        for path, name, node in reached(stage)
        if node is None or isinstance(node, ast.Assign)
    )
    return {str(v) for v in values if isinstance(v, Path) and str(v).startswith(MADE)}


def params_of(stage: str) -> set[str]:
    """Give the params that a stage's code reads, such as `tune.n_folds` or a whole `contract`."""
    read = set()
    for _, _, node in reached(stage):
        parts = list(ast.walk(node)) if node else []
        within = {id(part.value) for part in parts if isinstance(part, ast.Attribute)}
        for name in (dotted(part) for part in parts if id(part) not in within):
            if re.match(r"params\.[a-z]", name):
                read.add(of_params(name.removeprefix("params.")))
    return read


def of_params(name: str) -> str:
    """Cut what follows a param: `seed`, `tune.n_folds`; the contract and catalogues are one."""
    section, *fields = name.split(".")
    kind = Params.model_fields[section].annotation
    is_section = section not in ("contract", "models", "preprocessing")
    known = getattr(kind, "model_fields", {}) if is_section else {}
    return f"{section}.{fields[0]}" if fields and fields[0] in known else section


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def covers(place: str, other: str, sep: str) -> bool:
    return other == place or other.startswith(place + sep)


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_those_it_may(room):
    for path in modules(room):
        rooms = {name.split(".")[0] for name in imported(path)} & {*ROOMS, "tests", "benchmarks"}
        assert rooms <= {room} | MAY_IMPORT[room], path


@pytest.mark.parametrize("stage", STAGES)
def test_stage_imports_no_other_stage_not_even_by_a_helper(stage):
    others = {script(other) for other in STAGES if other != stage}

    assert with_all_it_imports(script(stage)) & others == set()


def test_every_script_is_a_stage_or_helps_one():
    used = set().union(*(with_all_it_imports(script(stage)) for stage in STAGES))

    assert set(modules("stages")) - used == {Path("stages/__init__.py")}


def test_front_of_a_room_holds_its_docstring_alone():
    for room in ROOMS:
        for path in modules(room):
            if path.name == "__init__.py":
                statements = parsed(path).body
                assert len(statements) == 1, path
                assert ast.get_docstring(parsed(path)), path


@pytest.mark.parametrize("stage", STAGES)
def test_stage_is_run_as_a_module_and_says_what_it_is_for(stage):
    listed = pipeline()[stage]

    assert re.fullmatch(rf"([A-Z]+=\S+ )?python -m stages\.{stage}( \$\{{item\}})?", listed["cmd"])
    assert len(listed["desc"]) > 20


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_all_the_code_that_a_stage_imports_and_no_other(stage):
    code = {dep for dep in names_of(pipeline()[stage]["deps"]) if dep.endswith(".py")}

    assert code == {str(path) for path in with_all_it_imports(script(stage))}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_and_outs_are_the_files_that_a_stage_names_and_no_others(stage):
    deps = {dep for dep in names_of(pipeline()[stage]["deps"]) if not dep.endswith(".py")}
    listed, named = (deps - {SOURCE}) | given(stage), paths_of(stage)

    assert {path for path in listed if not any(covers(n, path, "/") for n in named)} == set()
    assert {path for path in named if not any(covers(path, li, "/") for li in listed)} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_those_that_a_stage_reads_and_no_others(stage):
    listed = {name.removesuffix(".${item}") for name in pipeline()[stage]["params"]}
    read = params_of(stage)

    assert {name for name in read if not any(covers(li, name, ".") for li in listed)} == set()
    assert {li for li in listed if not any(covers(li, name, ".") for name in read)} == set()


def test_stages_meet_on_disk_and_nothing_comes_from_nowhere():
    made = set().union(*map(given, STAGES)) | {"data/champion.json", "data/reference.json", SOURCE}
    made = {path.replace("/${item}", "") for path in made}
    for stage in STAGES:
        for dep in names_of(pipeline()[stage]["deps"]):
            if not dep.endswith(".py"):
                assert any(covers(m, dep, "/") or covers(dep, m, "/") for m in made), (stage, dep)


def test_source_of_the_data_is_a_dependency_of_the_stage_that_reads_it_alone():
    assert [stage for stage in STAGES if SOURCE in pipeline()[stage]["deps"]] == ["ingest"]


def test_test_rows_are_opened_by_evaluate_alone():
    rows = "data/split/test.parquet"

    assert [stage for stage in STAGES if rows in pipeline()[stage]["deps"]] == ["evaluate"]
    assert [stage for stage in STAGES if rows in paths_of(stage)] == ["split", "evaluate"]


def test_no_code_or_page_names_a_column_of_the_contract():
    contract = load_params(ROOT / "params.yaml").contract
    names = re.compile(rf"\b({'|'.join(map(re.escape, contract.spelling_to_name()))})\b")
    free = [path for path in files("*.py", "*.html") if not str(path).startswith(MAY_NAME_COLUMNS)]

    found = {
        str(path): names.findall((ROOT / path).read_text("utf-8"))
        for path in free
        if names.search((ROOT / path).read_text("utf-8"))
    }

    assert found == {}
    assert len(free) > 20


def test_nobody_prints_or_touches_the_import_path():
    for path in files("*.py"):
        for node in ast.walk(parsed(path)):
            prints = isinstance(node, ast.Call) and dotted(node.func) == "print"
            assert not prints, f"{path}, line {getattr(node, 'lineno', 0)}: print"
            assert dotted(node) != "sys.path", f"{path}, line {node.lineno}: sys.path"


def test_stage_that_fits_nothing_imports_no_library_that_does():
    for stage in LIGHT_STAGES:
        for path in with_all_it_imports(script(stage)):
            assert {name.split(".")[0] for name in imported(path)} & HEAVY == set(), path


def test_importing_does_nothing(tmp_path):
    names = [module_name(path) for room in ROOMS for path in modules(room)]
    program = f"""
import importlib, logging, sys, threading
import warnings
for name in {names}:
    importlib.import_module(name)
    assert not logging.getLogger(name).handlers, name
assert not logging.root.handlers
assert threading.active_count() == 1, threading.enumerate()
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    assert (run.returncode, run.stdout) == (0, "")
    assert list(tmp_path.iterdir()) == []
