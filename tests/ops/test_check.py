import shutil
import sys

COMMAND = (sys.executable, "-m", "ops.check")


def test_what_is_right_passes_without_a_word(untrained):
    assert untrained.run(*COMMAND).stdout == ""


def test_an_unknown_section_is_named_though_no_stage_would_look_at_it(untrained):
    untrained.set_params({"sede": 3})

    run = untrained.run(*COMMAND, check=False)

    assert run.returncode == 1
    assert run.stdout == "ERROR: params.yaml: sede is not a known key; did you mean seed?\n"


def test_a_folder_without_git_or_a_commit_is_told_what_to_do(untrained):
    shutil.rmtree(untrained.root / ".git")
    for prepare in ((), ("init", "--quiet")):
        if prepare:
            untrained.git(*prepare)
        run = untrained.run(*COMMAND, check=False)
        assert run.returncode == 1
        assert "is no git repository with a commit" in run.stdout
        assert "Traceback" not in run.stdout
