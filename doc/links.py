"""Follow all links within the built site, to files and to places on pages.

``python doc/links.py doc/_build`` needs no network and no browser. It fails if a link,
an image, a style sheet or a script is missing.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and the places that others can link to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note where a tag leads, and its name."""
        values = dict(attrs)
        self.places |= {values.get("id"), values.get("name")}
        self.links |= {values.get("href"), values.get("src")} - {None}


def find_broken(folder):
    """List the links that lead nowhere.

    Parameters
    ----------
    folder : Path
        The built site, an absolute path without links.

    Returns
    -------
    broken : list of str
        Pages and their broken links.
    """
    pages = {
        file: Page(file.read_text(encoding="utf-8"))
        for file in sorted(folder.rglob("*.html"))
        if file.relative_to(folder).parts[0] != "_static"  # templates of the theme
    }
    broken = []
    for file, page in pages.items():
        for link in sorted(page.links):
            url = urlsplit(link)
            if url.scheme or url.netloc:  # of another site
                continue
            target = file
            if url.path:
                target = (file.parent / unquote(url.path)).resolve()
            place = unquote(url.fragment)
            there = target.exists()
            if there and place and target in pages:
                there = place in pages[target].places
            if not there:
                broken.append(f"{file.relative_to(folder)}: {link}")
    return broken


if __name__ == "__main__":
    found = find_broken(Path(sys.argv[1]).resolve(strict=True))
    print("\n".join(found) or "All links lead somewhere.")
    sys.exit(bool(found))
