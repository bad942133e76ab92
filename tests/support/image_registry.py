"""A registry of images on loopback, as the OCI distribution specification 1.1 asks of one.

It knows pushes and pulls, and nothing of logins, deletions or mounts.
"""

import hashlib
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PATH = re.compile("/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/]+)")


class Handler(BaseHTTPRequestHandler):
    """Blobs and manifests are files by their digest; a tag is a file that holds one."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def answer(self, status: int, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def body(self) -> Iterator[bytes]:
        """What was sent, whole or in chunks."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        elif length := int(self.headers.get("Content-Length") or 0):
            yield self.rfile.read(length)

    def kept(self) -> tuple[Path, str] | None:
        """The file that a path names, and its digest."""
        if not (found := PATH.fullmatch(self.path)):
            return None
        digest = found["reference"]
        tag = self.folder / f"{found['name'].replace('/', '+')}@{digest}"
        if tag.exists():
            digest = tag.read_text()
        path = self.folder / digest
        return (path, digest) if path.exists() else None

    def do_HEAD(self) -> None:
        """What is there, without it."""
        self.do_GET(send=False)

    def do_GET(self, send: bool = True) -> None:
        """A blob, or a manifest by tag or digest."""
        if self.path == "/v2/":
            return self.answer(200)
        if not (kept := self.kept()):
            return self.answer(404)
        path, digest = kept
        kind = path.with_name(f"{path.name}.type")
        headers = {"Content_Type": kind.read_text()} if kind.exists() else {}
        self.answer(200, path.stat().st_size, Docker_Content_Digest=digest, **headers)
        if send:
            with path.open("rb") as content:
                shutil.copyfileobj(content, self.wfile)
        return None

    def do_POST(self) -> None:
        """An upload begins."""
        upload = f"upload-{threading.get_ident()}-{len(list(self.folder.iterdir()))}"
        (self.folder / upload).touch()
        list(self.body())
        self.answer(202, Location=f"{urlsplit(self.path).path}{upload}")

    def do_PATCH(self) -> None:
        """More of a blob."""
        path = self.folder / Path(self.path).name
        with path.open("ab") as upload:
            upload.writelines(self.body())
        self.answer(202, Location=self.path, Range=f"0-{path.stat().st_size - 1}")

    def do_PUT(self) -> None:
        """The last of a blob, which must have the digest that is told; or a manifest."""
        path, _, query = self.path.partition("?")
        if query:
            upload, digest = self.folder / Path(path).name, parse_qs(query)["digest"][0]
            with upload.open("ab") as last:
                last.writelines(self.body())
            with upload.open("rb") as whole:
                if f"sha256:{hashlib.file_digest(whole, 'sha256').hexdigest()}" != digest:
                    return self.answer(400)
            upload.rename(self.folder / digest)
        else:
            content = b"".join(self.body())
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            name, reference = re.fullmatch("/v2/(.+)/manifests/([^/]+)", path).groups()  # type: ignore[union-attr]
            (self.folder / f"{digest}.type").write_text(self.headers["Content-Type"])
            (self.folder / digest).write_bytes(content)
            (self.folder / f"{name.replace('/', '+')}@{reference}").write_text(digest)
        return self.answer(201, Location=path, Docker_Content_Digest=digest)


@contextmanager
def image_registry(folder: Path) -> Iterator[str]:
    """The host and port of a registry that keeps in a folder what is pushed."""
    folder.mkdir()
    handler = type("Kept", (Handler,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
