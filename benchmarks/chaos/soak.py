"""Minutes near capacity."""

import statistics
import time

from frame import Case, fault


@fault("soak at 70 % of capacity")
def soak(case: Case) -> None:
    """Latency and memory of the last minute are those of the second."""
    with case.served(rate=100_000) as server:  # as fast as it answers
        time.sleep(3 if case.short else 20)
        start, sent = time.monotonic(), server.load.sent
        time.sleep(3 if case.short else 20)
        capacity = (server.load.sent - sent) / (time.monotonic() - start)
    span = 4 if case.short else 60
    with case.served(rate=0.7 * capacity) as server:
        time.sleep(4 * span if case.short else 600)
    case.none_failed(server)
    case.memory_held(server, 0.1)
    times, last = server.load.times, server.load.times[-1][0]
    first = times[0][0]
    quantiles = []
    for begin in (first + span, last - span):
        cuts = statistics.quantiles((t for at, t in times if 0 <= at - begin < span), n=100)
        quantiles.append((cuts[49], cuts[98]))
    for name, before, after in zip(("p50", "p99"), *quantiles, strict=True):
        case.notes.append(f"{name} {before * 1e3:.1f} to {after * 1e3:.1f} ms")
        grew = after / before - 1
        case.expect(case.short or grew <= 0.1, f"{name} grew by {grew:.0%}")
    case.notes.append(f"{0.7 * capacity:.0f} requests/s")
