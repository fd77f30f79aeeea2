import sys
from pathlib import Path

from ops import readme

ROOT = Path(__file__).parents[2]


def test_the_committed_readme_is_fresh(monkeypatch):
    monkeypatch.chdir(ROOT)

    text = readme.README.read_text("utf-8")

    assert readme.fresh(text) == text


def test_a_stale_readme_is_refused_by_check_and_mended_by_writing(trained_once, tmp_path):
    # the small project's results differ from those that its README was copied with
    command = (sys.executable, "-m", "ops.readme")
    before = trained_once.read("README.md")

    checked = trained_once.run(*command, "--check", check=False)
    assert checked.returncode == 1
    assert "README.md is stale" in checked.stdout
    assert trained_once.read("README.md") == before

    trained_once.run(*command)
    assert trained_once.run(*command, "--check").returncode == 0
    (trained_once.root / "README.md").write_text(before, "utf-8")


def test_the_graph_follows_from_what_stages_give_and_take():
    stages = {
        "read": {"deps": ["a.csv"], "outs": ["rows"]},
        "fit": {"deps": ["rows/train.csv"], "outs": ["model"], "metrics": [{"m.json": {}}]},
        "judge": {"deps": ["m.json"]},
    }

    drawn = readme.graph(stages)

    assert [line.strip() for line in drawn.splitlines() if "-->" in line] == [
        "read --> fit",
        "fit --> judge",
    ]
