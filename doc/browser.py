"""Look at the built site with a browser, on a wide and on a narrow screen.

``python doc/browser.py doc/_build`` needs the extra ``plot``, whose Qt holds Chromium,
and no display. It fails if a page has errors of JavaScript, broken images or text that
is cut off, or if the search does not find what it should.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu")

from PySide6.QtCore import QEventLoop, QTimer, QUrl  # noqa: E402
from PySide6.QtWebEngineCore import QWebEnginePage  # noqa: E402
from PySide6.QtWebEngineWidgets import QWebEngineView  # noqa: E402
from PySide6.QtWidgets import QApplication  # noqa: E402

WIDTHS = (1300, 390)
SEARCH = ("search.html", "q=apply_deepsif")
# What lies right of the window, unless it can be scrolled to.
LOOK = """JSON.stringify({
    title: document.title,
    width: innerWidth,
    broken: [...document.images].filter(i => i.complete && !i.naturalWidth)
        .map(i => i.src),
    cut: [...document.querySelectorAll("main *")].filter(
        e => e.getBoundingClientRect().right > innerWidth + 1
            && !e.closest("pre, table, mjx-container, .highlight")
    ).map(e => e.tagName + " " + e.textContent.trim().slice(0, 40)),
    hits: [...document.querySelectorAll("#search-results li a")]
        .map(a => a.textContent),
})"""


class Page(QWebEnginePage):
    """A page that keeps the errors of its scripts."""

    def __init__(self, parent):
        super().__init__(parent)
        self.errors = []

    def javaScriptConsoleMessage(self, level, message, line, source):  # noqa: N802
        """Keep an error."""
        if level == self.JavaScriptConsoleMessageLevel.ErrorMessageLevel:
            self.errors.append(message)

    def wait(self, signal=None, timeout=20.0):
        """Wait for a signal, or for some time (s)."""
        loop = QEventLoop()
        QTimer.singleShot(int(1000 * timeout), loop.quit)
        if signal is not None:
            signal.connect(loop.quit)
        loop.exec()

    def open(self, url):
        """Load a page, and let its scripts run."""
        self.errors.clear()
        self.load(url)
        self.wait(self.loadFinished)
        self.wait(timeout=4.0 if url.hasQuery() else 0.2)

    def look(self):
        """Return what can be seen of the page."""
        self.wait(timeout=0.1)  # it may have another width than before
        seen, loop = [], QEventLoop()
        self.runJavaScript(LOOK, 0, lambda text: (seen.append(text), loop.quit()))
        loop.exec()
        return json.loads(seen[0]) | {"errors": list(self.errors)}


def find_faults(folder):
    """Look at all pages.

    Parameters
    ----------
    folder : Path
        The built site.

    Returns
    -------
    faults : list of str
        What is wrong.
    """
    application = QApplication.instance() or QApplication(sys.argv)
    view = QWebEngineView()
    page = Page(view)
    view.setPage(page)
    view.show()
    names = [file.relative_to(folder) for file in sorted(folder.rglob("*.html"))]
    names = [name for name in names if name.parts[0] not in ("_modules", "_static")]
    faults = []
    for name in names:
        url = QUrl.fromLocalFile(str(folder / name))
        if name.name == SEARCH[0]:
            url.setQuery(SEARCH[1])
        page.open(url)
        for width in WIDTHS:
            view.resize(width, 900)
            seen = page.look()
            if seen["width"] != width:
                faults.append(f"{name}: {seen['width']} instead of {width} px wide")
            for kind in ("errors", "broken", "cut"):
                if seen[kind]:
                    faults.append(f"{name} at {width} px: {kind} {seen[kind][:3]}")
        if "mne_deepsif" not in seen["title"].split():
            faults.append(f"{name}: the title is {seen['title']!r}")
        if url.hasQuery() and SEARCH[1][2:] not in seen["hits"]:
            faults.append(f"the search finds {seen['hits'][:5]}")
    view.close()
    application.processEvents()
    return faults


if __name__ == "__main__":
    found = find_faults(Path(sys.argv[1]).resolve(strict=True))
    print("\n".join(found) or "Nothing is wrong.")
    sys.exit(bool(found))
