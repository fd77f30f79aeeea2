"""Draw the one picture of a run: leaderboard, predictions, slices and importance."""

import io

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contract.features import Target
from contract.task import Score

INK, FAINT, SOFT, ACCENT, CHOSEN = "#22303c", "#66798a", "#9fb1bf", "#2a78b5", "#d9822b"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,  # a category may hold a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e6ebef",
    "svg.hashsalt": "overview",  # the same ids, so the same bytes, each time
}


def draw_overview(
    points: pd.DataFrame,
    slices: pd.DataFrame,
    importance: pd.DataFrame,
    leaderboard: pd.DataFrame,
    score: Score,
    target: Target,
) -> str:
    """Give an SVG of four panels; the tables have the columns that `evaluate` writes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 11), layout="constrained")
        axes = figure.subplots(2, 2, height_ratios=[1, 1.25])
        _draw_leaderboard(axes[0, 0], leaderboard, score)
        _draw_predictions(axes[0, 1], points, target)
        _draw_slices(axes[1, 0], slices, score)
        _draw_importance(axes[1, 1], importance, score)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return svg.getvalue()


def _in_words(score: Score) -> str:
    direction = "higher" if score.higher_is_better else "lower"
    return f"{score.name.replace('_', ' ')} ({direction} is better)"


def _draw_leaderboard(axes: Axes, leaderboard: pd.DataFrame, score: Score) -> None:
    """Draw the candidates near to each other; the baseline, far off, is told in words."""
    is_baseline = leaderboard["candidate"] == "baseline"
    table = leaderboard[~is_baseline].iloc[::-1]
    for chosen, color in ((False, ACCENT), (True, CHOSEN)):
        some = table["mean"].where(table["chosen"] == chosen)
        error = {"xerr": table["standard_error"], "fmt": "o", "elinewidth": 3}
        axes.errorbar(some, table["candidate"], color=color, **error)
    axes.set_title("Candidates in cross-validation (orange: chosen)")
    baseline = leaderboard["mean"][is_baseline].iloc[0]
    axes.set_xlabel(f"{_in_words(score)}, with standard error; baseline {baseline:.3g}")
    axes.grid(axis="x")


def _draw_predictions(axes: Axes, points: pd.DataFrame, target: Target) -> None:
    ordered = points.sort_values("predicted")
    axes.fill_between(
        ordered["predicted"],
        ordered["lower"],
        ordered["upper"],
        color=ACCENT,
        alpha=0.12,
        linewidth=0,
        label="prediction interval",
    )
    axes.scatter(points["predicted"], points["actual"], s=14, color=ACCENT, alpha=0.7, linewidth=0)
    ends = [ordered["predicted"].min(), ordered["predicted"].max()]
    axes.plot(ends, ends, color=CHOSEN, label="predicted = actual")
    unit = f" [{target.unit}]" if target.unit else ""
    axes.set_title("Test rows, predicted and actual")
    axes.set_xlabel(f"predicted {target.name}{unit}")
    axes.set_ylabel(f"actual {target.name}{unit}")
    axes.legend(loc="upper left", frameon=False)
    axes.grid()


def _draw_slices(axes: Axes, slices: pd.DataFrame, score: Score) -> None:
    axes.set_title("Test rows by group (number of rows)")
    if slices.empty:
        axes.text(0.5, 0.5, "no categorical feature", ha="center", transform=axes.transAxes)
        return
    shown = slices.dropna(subset=[score.name]).iloc[::-1]
    names = shown["group"] + "  (" + shown["n_rows"].astype(str) + ")"
    places = range(len(shown))
    side = axes.get_yaxis_transform()  # x by the width of the panel, y by the places
    axes.hlines(places, shown["lower"], shown["upper"], color=SOFT, linewidth=3)
    axes.scatter(shown[score.name], places, color=ACCENT, zorder=3)
    axes.set_yticks(places, names)
    for feature, rows in shown.reset_index(drop=True).groupby("feature"):
        top = rows.index.max() + 0.5
        axes.axhline(top, color=SOFT, linewidth=0.8, linestyle=":")
        axes.text(0.01, top - 0.1, feature, va="top", color=FAINT, transform=side)
    axes.set_xlabel(f"{_in_words(score)}, with confidence interval")
    axes.grid(axis="x")


def _draw_importance(axes: Axes, importance: pd.DataFrame, score: Score) -> None:
    table = importance.iloc[::-1]
    axes.barh(table["feature"], table["importance"], color=ACCENT, height=0.65)
    axes.errorbar(
        table["importance"],
        table["feature"],
        xerr=table["standard_deviation"],
        fmt="none",
        ecolor=INK,
    )
    axes.set_title("Importance of features, by permutation")
    axes.set_xlabel(f"loss of {score.name.replace('_', ' ')} when the feature is shuffled")
    axes.grid(axis="x")
