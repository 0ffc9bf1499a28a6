"""A hub on this machine: an HTTP server that speaks the part of the hub's protocol that fetching a model needs, so that
the real huggingface_hub is what is tested. Nothing leaves the loopback interface.
"""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

CHUNK = 2**16  # bytes that the library writes at once; what came before a chunk was full is lost with the connection
LARGE = 20_000  # bytes from which a file is stored as the hub stores large ones, under its SHA-256
MOST_REQUESTS = 500  # in one test; far more than any needs


@dataclass
class Repository:
    """One model: its commits, and what its branches and tags stand at."""

    gated: str | bool = False
    licence: str = "apache-2.0"
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], *references: str) -> str:
        """Add a commit and let the branches and tags stand at it; its SHA."""
        digest = hashlib.sha1()
        for name, content in sorted(files.items()):
            digest.update(name.encode() + content)
        sha = digest.hexdigest()
        self.commits[sha] = files
        self.references |= dict.fromkeys(references or ("main",), sha)
        return sha

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.references.get(revision)


class FakeHub(ThreadingHTTPServer):
    """`repositories` by id. `requests` is what came in. The rest makes it misbehave."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.before: Callable[[str, str], None] = lambda method, path: None  # called with every request
        self.status: int | None = None  # every answer has it
        self.status_headers: dict[str, str] = {}
        self.known_token: str | None = None  # other tokens are refused
        self.allowed: set[str] = set()  # tokens that may read gated models
        self.drops: Counter[str] = Counter()  # file name -> how many more times the connection breaks half-way

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def got(self, method: str = "GET") -> list[str]:
        """The names of the files that were asked for in the order of asking."""
        pattern = re.compile(r"/[^/]+/[^/]+/resolve/[^/]+/(.+)")
        return [match[1] for asked, path, _ in self.requests if asked == method and (match := pattern.fullmatch(path))]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise every answer waits for 40 ms
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range")))
        hub.before(self.command, path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if len(hub.requests) > MOST_REQUESTS:
            return self.refuse(508)
        if hub.status is not None:
            return self.refuse(hub.status, **hub.status_headers)
        if token and token != hub.known_token:
            return self.refuse(401, X_Error_Message="Invalid credentials in Authorization header")
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        if match:
            return self.listing(match[1], match[2], match[3] or "main")
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match:
            return self.file(*match.groups(), token, with_body)
        return self.refuse(404)

    def found(self, hub_id: str, revision: str) -> tuple[Repository, str] | None:
        repository = self.server.repositories.get(hub_id)
        if repository is None:  # the hub does not tell strangers that a model is missing
            self.refuse(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return None
        commit = repository.find(revision)
        if commit is None:
            self.refuse(404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {revision}")
            return None
        return repository, commit

    def listing(self, hub_id: str, kind: str | None, revision: str) -> None:
        """What is known of a model at a revision, or (tree) the list of its files."""
        found = self.found(hub_id, revision)
        if found is None:
            return
        repository, commit = found
        files = repository.commits[commit]
        if kind == "tree":
            return self.send(json.dumps([tree_entry(name, content) for name, content in files.items()]).encode())
        card = {"license": repository.licence}
        info = {
            "id": hub_id,
            "sha": commit,
            "gated": repository.gated,
            "cardData": card,
            "tags": [f"license:{repository.licence}"],
            "siblings": [sibling(name, content) for name, content in files.items()],
        }
        self.send(json.dumps(info).encode())

    def file(self, hub_id: str, revision: str, name: str, token: str, with_body: bool) -> None:
        found = self.found(hub_id, revision)
        if found is None:
            return None
        repository, commit = found
        if repository.gated and token not in self.server.allowed:
            return self.refuse(403 if token else 401, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        content = repository.commits[commit].get(name)
        if content is None:
            return self.refuse(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(content)}"', "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(content[start:], 206 if start else 200, headers, with_body, name)

    def refuse(self, status: int, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send(b"", status, named)

    def send(
        self,
        body: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        with_body: bool = True,
        name: str = "",
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        if self.server.drops[name] > 0:
            self.server.drops[name] -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)


def etag(content: bytes) -> str:
    """The name under which the hub knows a content: of large files the SHA-256, of small ones Git's own."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content)
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else git.hexdigest()


def sibling(name: str, content: bytes) -> dict:
    entry = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
    if len(content) >= LARGE:
        return entry | {"lfs": {"sha256": etag(content), "size": len(content), "pointerSize": 134}}
    return entry | {"blobId": etag(content)}


def tree_entry(name: str, content: bytes) -> dict:
    entry = {"type": "file", "path": name, "size": len(content), "oid": etag(content)}
    lfs = {"oid": etag(content), "size": len(content), "pointerSize": 134}
    return entry | ({"lfs": lfs} if len(content) >= LARGE else {})


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def running() -> Iterator[FakeHub]:
    """A hub that answers until the block ends."""
    with FakeHub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


@contextmanager
def use_hub(monkeypatch, hub: FakeHub, cache: Path) -> Iterator[None]:
    """Let huggingface_hub, which reads its settings once, ask this hub, and keep its files in `cache`."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    settings = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(cache / "no token"),
        "DOWNLOAD_CHUNK_SIZE": CHUNK,
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library waits before it tries again
    disable_progress_bars()
    yield
    enable_progress_bars()
