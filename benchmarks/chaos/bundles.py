"""A bundle that lost a part of a file on its way."""

from pathlib import Path

from frame import Case, fault, wait_for


@fault("a bundle cut short at every file")
def cut(case: Case) -> None:
    """Each is refused and told, the old one is served, and the whole one is taken."""
    registry = case.registry
    held = registry.alias("test")
    other = next(version for version in case.answers if version != held)
    digest = case.module("bundle").digest_of(Path("var/versions", other))
    sources = [path.parent for path in Path("var/artifacts").glob("**/manifest.json")
               if case.module("bundle").digest_of(path.parent) == digest]  # fmt: skip
    files = [path for path in sources[0].iterdir() if path.is_file()]
    with case.served() as server:
        for path in files:
            content = path.read_bytes()
            cuts = len(content) // 2, 0, len(content) - 1
            for part in cuts[: len(case.times(3, 1))]:
                path.write_bytes(content[:part])
                registry.set_alias("test", other)
                what = f"{path.name} with {part} of {len(content)} bytes"
                wait_for(lambda: server.metric("bundle_refused") == 1, f"{what} is refused")
                registry.set_alias("test", held)
                wait_for(lambda: server.metric("bundle_refused") == 0, f"{what} is forgotten")
            path.write_bytes(content)
        served = [*server.load.versions]
        case.expect(served == [held], f"a damaged bundle was served: {served}")
        registry.set_alias("test", other)
        server.follows(other)
    case.none_failed(server)
    case.notes.append(f"{len(files)} files, {len(case.times(3, 1))} cuts of each")
