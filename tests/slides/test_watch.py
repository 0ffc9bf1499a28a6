"""While sources are edited, the page rebuilds itself, and a broken source is shown instead of lost."""

import threading
import urllib.request

from slides import watch


def test_what_was_built_is_served_and_changes_are_seen(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("<html><body>one</body></html>")

    class Done:
        returncode, stderr = 0, ""

    monkeypatch.setattr(watch.subprocess, "run", lambda *_, **__: Done)
    state = watch.State(page)
    state.build()
    server = watch.http.server.ThreadingHTTPServer(("127.0.0.1", 0), watch._handler(state))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    read = lambda path: urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}").read().decode()  # noqa: E731
    try:
        assert "one" in read("/")
        assert "location.reload" in read("/")
        assert read("/changed") == "1"
        page.write_text("<html><body>two</body></html>")
        state.build()
        assert read("/changed") == "2"
        assert "two" in read("/")
        Done.returncode, Done.stderr = 1, "06-memory.md: 11 in 'Annotations' < 12"
        state.build()
        assert "11 in &#x27;Annotations&#x27; &lt; 12" in read("/")
    finally:
        server.shutdown()


def test_every_source_is_watched(tmp_path, monkeypatch):
    (tmp_path / "01-title.md").write_text("one")
    monkeypatch.setattr(watch, "WATCHED", (tmp_path,))
    before = watch.stamps()
    assert [path.name for path in before] == ["01-title.md"]
    (tmp_path / "figure.py").write_text("two")
    assert watch.stamps() != before
