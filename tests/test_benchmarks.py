from benchmarks.__main__ import main
from benchmarks.report import verdict


def test_a_section_is_measured_anew_and_the_others_stay(tmp_path):
    results = tmp_path / "results.md"
    results.write_text("# Costs\n\n## 1 Something else\n\nkept\n\n## 5 Halving\n\nalso kept\n")

    main(["--only", "halving", "--quick", "--output", str(results)])

    text = results.read_text()
    assert (
        "## 1 Something else\n\nkept\n\n## 5 Halving\n\nalso kept\n\n## 5 Halving against" in text
    )
    assert "`python -m benchmarks --only halving --quick`" in text
    assert "| ridge |" in text


def test_a_figure_that_misses_its_target_is_written_as_missed():
    assert verdict("no-op", 2.5, 2).endswith("**missed**")
    assert verdict("no-op", 1.5, 2).endswith("reached")
    assert verdict("own work", 0.4, 0.5, at_least=True).endswith("**missed**")
