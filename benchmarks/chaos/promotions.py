"""What is promoted and rolled back while it is served."""

from frame import Case, fault, wait_for


@fault("promotions and rollbacks")
def promotions(case: Case) -> None:
    """To and fro between two versions: each answer is one version's, and none is missing."""
    promote, history = case.module("registry.promote"), case.module("registry.history")
    settings, registry = case.module("settings").load(), case.registry
    with case.served() as server:
        for number in case.times(200, 10):
            if number % 2:
                to = history.rollback("test", registry).to
            else:
                others = {*case.answers} - {registry.alias("test")}
                to = promote.promote("test", settings, registry, version=others.pop()).to
            wait_for(lambda to=to: server.load.version == to, f"version {to} is served")
    case.none_failed(server)
    case.memory_held(server)
    case.notes.append(f"{number + 1} moves; answers by version {dict(server.load.versions)}")
