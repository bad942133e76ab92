"""What is promoted and rolled back while it is served."""

from frame import Case, fault


def moves(case: Case, workers: int = 1) -> None:
    """To and fro between two versions: each answer is one version's, and none is missing."""
    rollback = case.module("registry.history").rollback
    with case.served(SERVING_WORKERS=str(workers)) as server:
        for number in case.times(200, 10):
            to = rollback("test", case.registry).to if number % 2 else case.promote()
            server.follows(to)
    case.none_failed(server)
    case.memory_held(server)
    case.notes.append(f"{number + 1} moves; answers by version {dict(server.load.versions)}")


@fault("promotions and rollbacks")
def promotions(case: Case) -> None:
    """As a server is by default."""
    moves(case)


@fault("moves with two workers")
def two_workers(case: Case) -> None:
    """Each swaps when it sees the pointer."""
    moves(case, workers=2)
