"""What one prediction costs from MLflow's and BentoML's servers, beside ours: `make bench-peers`.

All serve the model that the pipeline chose. The peers are spared all but the model: encoded
numbers come in, and nobody checks or logs them.
"""

from contextlib import ExitStack
from statistics import median

from benchmarks.load import CONSTANT, OUR_SETTINGS, cost_of_a_request, row_as_json, serving
from benchmarks.peer_servers import PEERS, Contestant, prepare
from benchmarks.report import Section, make_table, verdict

CONNECTIONS = (1, 8)
N_ROUNDS = 5
ROUND_S = 4
TIMES_OURS = 5  # the CPU time that we expect a peer's request to take at least


def measure_peers(quick: bool) -> Section:
    """Ask each server for the same prediction, in turn, and compare its CPU time with ours."""
    n_rounds, seconds = (1, 1) if quick else (N_ROUNDS, ROUND_S)
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    row = row_as_json()
    constant = serving(*OUR_SETTINGS, CONSTANT, WORKERS="2")
    contestants = [
        Contestant("a constant", constant, "/predict", row),
        Contestant("ours", serving(*OUR_SETTINGS, WORKERS="2"), "/predict", row),
        *(prepare(peer, row) for peer in PEERS),
    ]
    with ExitStack() as stack:
        running = [(each, stack.enter_context(each.server)) for each in contestants]
        for each, server in running:
            cost_of_a_request(server.port, 8, 1, each.body, each.path)  # warm
        for _ in range(n_rounds):
            for n_connections in CONNECTIONS:
                for each, server in running:
                    figures = cost_of_a_request(
                        server, n_connections, seconds, each.body, each.path
                    )
                    found.setdefault((each.name, n_connections), []).append(figures)
    rows = {
        key: [median(column) for column in zip(*each, strict=True)] for key, each in found.items()
    }
    header = ["server", "connections", "CPU ms a request", "p99 ms", "requests/s"]
    ratios = {
        f"CPU a request, {name} / ours, {n} connections": cpu_ms / rows["ours", n][0]
        for (name, n), (cpu_ms, *_) in rows.items()
        if name not in ("a constant", "ours")
    }
    return Section(
        "16 Peers",
        (
            f"Medians of {n_rounds} runs of {seconds} s, the servers in turn, two workers each, on "
            "the processors that also run wrk. The peers get encoded numbers and neither check nor "
            "log them; ours gets the row as people send it, and does both. CPU time is that of all "
            "processes of a server.",
            make_table(
                header, [[*key, f"{cpu:.3f}", ms, round(n)] for key, (cpu, ms, n) in rows.items()]
            ),
            "\n".join(verdict(*ratio, TIMES_OURS, at_least=True) for ratio in ratios.items()),
        ),
    )
