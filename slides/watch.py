"""Show the deck while it is written: a local page that rebuilds itself whenever a source changes.

Every build is a process of its own, so that figures written in Python are read anew. What went wrong is shown in the
page instead of the slides.
"""

import http.server
import subprocess
import sys
import threading
import time
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
WATCHED = (HERE / "content", HERE / "figures", HERE / "theme", HERE, HERE.parent / "results")
INTERVAL = 0.4  # seconds
RELOAD = """<script>
let shown; setInterval(async () => {
  const now = await (await fetch("/changed")).text();
  if (shown && now !== shown) location.reload();
  shown = now;
}, 500);
</script>"""


class State:
    """The page as it was last built, and a number that grows with every build."""

    def __init__(self, page: Path):
        self.page, self.builds, self.html = page, 0, b""

    def build(self) -> None:
        done = subprocess.run([sys.executable, "-m", "slides", "page"], cwd=HERE.parent, capture_output=True, text=True)
        if done.returncode:
            text = f"<!doctype html><title>Deck</title><pre>{escape(done.stderr[-6000:])}</pre>"
        else:
            text = self.page.read_text(encoding="utf-8")
        self.html = (text + RELOAD).encode()
        self.builds += 1


def watch(page: Path, port: int = 8009) -> None:
    """Serves on this machine only, until interrupted."""
    state = State(page)
    state.build()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _handler(state))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://localhost:{server.server_port}/  (Ctrl+C ends)", file=sys.stderr)
    seen = stamps()
    try:
        while True:
            time.sleep(INTERVAL)
            now = stamps()
            if now != seen:
                seen = now
                state.build()
                print(f"built {state.builds}", file=sys.stderr)
    except KeyboardInterrupt:
        server.shutdown()


def stamps() -> dict[Path, int]:
    """When each watched file was changed last."""
    files = (
        path
        for folder in WATCHED
        for path in folder.iterdir()
        if path.suffix in {".md", ".py", ".css", ".js", ".j2", ".json"}
    )
    return {path: path.stat().st_mtime_ns for path in files}


def _handler(state: State) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = str(state.builds).encode() if self.path == "/changed" else state.html
            self.send_response(200)
            self.send_header("Content-Type", "text/plain" if self.path == "/changed" else "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: half a line a second would hide the builds."""

    return Handler
