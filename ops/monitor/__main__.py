"""Hold the predictions of late against the rows that the model was trained on.

Ends with 0 if all is calm, 1 if something drifted, 2 if there are too few rows to say, and 3 if
the log, the model or a setting cannot be used.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from contract.artifact import FINAL, load_train_profile
from contract.errors import ContractError
from contract.monitoring import Report
from contract.params import load_params
from contract.predictions.read import Window, open_log_for_reading
from contract.predictions.settings import LogSettings
from contract.settings import read_settings
from ops.alerts import AlertSettings, alert
from ops.evidently_page import expect_evidently, write_page_of_log
from ops.monitor.measure import measure
from ops.monitor.page import page_of
from ops.predictions.command import CommandError, add_local, add_since, parse_count, parse_time
from ops.verdict import CODES, FAILED, N_TOLD, Parser, line_of
from ops.whole_file import write_whole


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m ops.monitor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_since(parser)
    parser.add_argument("--until", metavar="TIME", type=parse_time, help="the same; not included")
    parser.add_argument("--last", metavar="N", type=parse_count, help="the newest N predictions")
    parser.add_argument("--model", metavar="FOLDER", type=Path, default=FINAL)
    parser.add_argument("--report", metavar="FILE", type=Path, help="else MONITOR_REPORT")
    parser.add_argument("--html", metavar="FILE", type=Path, help="a page, which works offline")
    parser.add_argument(
        "--evidently", metavar="FILE", type=Path, help="the page of Evidently, which is optional"
    )
    parser.add_argument("--no-alerts", action="store_true", help="tell nobody")
    add_local(parser)
    return parser.parse_args(arguments)


def make_report(options: argparse.Namespace) -> tuple[Report, list[str]]:
    """Read the log; give the report, and what there is to say of Evidently's page."""
    if options.evidently:
        expect_evidently()
    settings, params = read_settings(LogSettings), load_params()
    manifest, reference = load_train_profile(options.model)
    window = Window(options.since, options.until, options.last)
    with closing(open_log_for_reading(settings, options.local)) as reader:
        page = options.evidently
        said = write_page_of_log(page, reader, window, options.model) if page else []
        return measure(reader, window, manifest, reference, params), said


def in_words(report: Report) -> str:
    lines = [f"{report.status}: {report.summary}", *map(line_of, report.findings[:N_TOLD])]
    if error := report.live_error:
        lines.append(
            f"  {error.score} {error.value:.4g} ({error.low:.4g} to {error.high:.4g} with 95% "
            f"confidence) over {error.n_rows:,} rows, {error.promised:.4g} was promised"
        )
    return "\n".join([*lines, *(f"  note  {note}" for note in report.notes)])


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        settings = read_settings(AlertSettings)
        path = options.report or settings.monitor_report
        report, said = make_report(options)
        write_whole(path, report.model_dump_json(indent=1) + "\n")
        if options.html:
            write_whole(options.html, page_of(report))
        alerts = settings.model_copy(update={"monitor_report": path})
        said += [] if options.no_alerts else alert(report, alerts)
    except (ContractError, CommandError, OSError) as error:
        sys.stderr.write(f"ERROR: {error}\n")
        sys.exit(FAILED)
    sys.stdout.write("\n".join([in_words(report), *said, ""]))
    sys.exit(CODES[report.status])


if __name__ == "__main__":
    main()
