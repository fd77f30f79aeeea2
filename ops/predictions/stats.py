"""Sum up predictions: how many, by whom, by which model, what was refused, how far off."""

import argparse
from collections.abc import Iterable, Sequence

from contract.predictions.counts import Delivery, HourCount, Stats
from contract.predictions.counts import stats as count
from contract.predictions.damage import RECOVER
from contract.predictions.read import Window
from contract.predictions.settings import LogSettings
from ops.predictions.command import add_local, add_since, printable, say

BAR = 40  # characters of the longest
N_LISTED = 20  # of the fields and rules that refused most


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_since(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    add_local(parser)


def run(options: argparse.Namespace, settings: LogSettings) -> None:
    found = count(settings, Window(since=options.since), options.local)
    say(found.model_dump_json(indent=2) if options.json else "\n".join(_in_words(found)))


def _in_words(found: Stats) -> Iterable[str]:
    since = f", since {found.since:%Y-%m-%d %H:%M} UTC" if found.since else ""
    yield f"{found.log}, {found.n_bytes / 1e6:,.1f} MB{since}"
    yield ""
    yield from _predictions(found)
    yield from _rejected(found)
    for path in found.set_aside:
        yield ""
        yield f"{'set aside':<14}{path} may hold more: `{RECOVER} {path}` brings it back."
    if found.delivery:
        yield from _delivery(found.delivery)


def _predictions(found: Stats) -> Iterable[str]:
    if not found.n_predictions:
        yield "It holds no predictions" + (" of that time." if found.since else " yet.")
        return
    sources = "  ".join(f"{printable(name)} {n:,}" for name, n in found.by_source.items())
    yield f"{'predictions':<14}{found.n_predictions:,}   {sources}"
    if found.prediction:
        low, mean, high = found.prediction.min, found.prediction.mean, found.prediction.max
        yield f"{'prediction':<14}{low:.4g} to {high:.4g}, mean {mean:.4g}"
    if found.latency:
        latency = found.latency
        yield (
            f"{'latency':<14}p50 {latency.p50_ms:.3g} ms   p95 {latency.p95_ms:.3g} ms   "
            f"p99 {latency.p99_ms:.3g} ms"
        )
    yield f"{'truths':<14}{_truths(found)}"
    yield f"{'gaps':<14}{_gaps(found)}"
    if found.n_hashed:
        yield f"{'hashed':<14}features of {found.n_hashed:,} rows"
    yield ""
    yield f"{'model':<14}{'predictions':>14}  {'first (UTC)':<21}last (UTC)"
    for model in found.by_model:
        first, last = (f"{time:%Y-%m-%d %H:%M:%S}" for time in (model.first, model.last))
        yield f"{printable(model.version):<14}{model.n_predictions:>14,}  {first:<21}{last}"
    yield ""
    yield from _hours(found.by_hour)


def _truths(found: Stats) -> str:
    if found.mean_absolute_error is None:
        return "none attached"
    return f"{found.n_truths:,} attached, mean absolute error {found.mean_absolute_error:.4g}"


def _gaps(found: Stats) -> str:
    told = [
        f"{printable(name)} {n:,} ({n / found.n_predictions:.1%})" for name, n in found.gaps.items()
    ]
    if found.n_without_features:
        told.append(f"not known of {found.n_without_features:,} rows without features")
    return "  ".join(told) or "none"


def _hours(hours: Sequence[HourCount]) -> Iterable[str]:
    most = max(hour.n_predictions for hour in hours)
    if not most:
        yield f"none in the last {len(hours)} hours"
        return
    yield f"{'hour (UTC)':<14}{'predictions':>14}"
    for hour in hours:
        bar = "#" * -(-hour.n_predictions * BAR // most)  # at least one, if there is any
        yield f"{hour.hour:%m-%d %H:00}   {hour.n_predictions:>14,}  {bar}".rstrip()


def _rejected(found: Stats) -> Iterable[str]:
    yield ""
    yield f"{'rejected':<14}{found.n_rejected:,} values"
    for each in found.rejected[:N_LISTED]:
        field = printable(each.field) or "(no field of the contract)"
        yield f"{'':<14}{each.n_values:>8,}  {each.share:>6.1%}  {field}  {printable(each.rule)}"
    if len(found.rejected) > N_LISTED:
        yield f"{'':<14}and {len(found.rejected) - N_LISTED} more kinds, see --json"


def _delivery(delivery: Delivery) -> Iterable[str]:
    yield ""
    waiting = "nobody knows how many rows wait"
    if delivery.n_waiting is not None:
        waiting = f"{delivery.n_waiting:,} rows wait"
    if delivery.n_waiting:
        waiting += f", the oldest for {delivery.oldest_s:,.0f} s"
    yield f"{'delivery':<14}to {delivery.target}: {waiting}"
    if delivery.problem:
        yield f"{'':<14}{delivery.problem}"
    if delivery.n_undeliverable:
        yield f"{'':<14}{delivery.n_undeliverable:,} rows that it cannot take are kept here"
