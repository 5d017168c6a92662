"""The drawing of "How it works": once, before you start, and with your data.

draw_path(fname)    writes it
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

BEFORE = (
    "neural masses on\nrandom heads",
    "what sensors\nwould measure",
    "the network learns\nto go back",
)
YOURS = (
    "Evoked, Forward,\nnoise covariance",
    "whiten, project\nback on parcels",
    "network: where is\nactivity likely?",
    "minimum norm\nwith this prior",
    "SourceEstimate\nin A·m",
)
_SIZE = 0.86, 0.56  # of a box, where the next one is 1 to the right
_TOP, _BOTTOM = 1.35, 0.0  # the rows
_ARROW = dict(arrowstyle="->", color="0.3", shrinkA=0, shrinkB=0)
_BLUE, _ORANGE, _GREY = "#cfe2f3", "#fce5cd", "#eeeeee"


def draw_path(fname):
    """Draw how simulated data become weights, and your data an estimate."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9.5, 3.6))
    _draw_row(axes, BEFORE, _TOP, [_GREY] * 3)
    _draw_row(axes, YOURS, _BOTTOM, [_BLUE, _BLUE, _ORANGE, _BLUE, _BLUE])
    _draw_bypass(axes, 1, 3, "whitened data and leadfield")
    _draw_arrow(axes, (2, _TOP), (2, _BOTTOM), vertical=True)
    axes.text(2.06, (_TOP + _BOTTOM) / 2, "generic weights", va="center", fontsize=9)
    for y, text in ((_TOP, "Once, by us"), (_BOTTOM, "With your data")):
        axes.text(-_SIZE[0] / 2, y + 0.36, text, weight="bold", fontsize=10)
    axes.set(xlim=(-0.5, len(YOURS) - 0.5), ylim=(-0.7, _TOP + 0.6))
    axes.axis("off")
    figure.savefig(fname, bbox_inches="tight")
    plt.close(figure)


def _draw_row(axes, texts, y, colors):
    for x, (text, color) in enumerate(zip(texts, colors, strict=True)):
        _draw_box(axes, text, x, y, color)
        if x:
            _draw_arrow(axes, (x - 1, y), (x, y))


def _draw_box(axes, text, x, y, color):
    from matplotlib.patches import FancyBboxPatch

    width, height = _SIZE
    corner = x - width / 2, y - height / 2
    axes.add_patch(
        FancyBboxPatch(
            *(corner, width, height),
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=color,
            edgecolor="0.5",
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5)


def _draw_bypass(axes, first, last, text):
    """Draw an arrow below the boxes between two of the lower row."""
    low, under = _BOTTOM - _SIZE[1] / 2, _BOTTOM - _SIZE[1] / 2 - 0.22
    axes.plot([first, first, last], [low, under, under], color="0.3", lw=1)
    axes.annotate("", (last, low), (last, under), arrowprops=_ARROW)
    axes.text((first + last) / 2, under - 0.03, text, ha="center", va="top", fontsize=9)


def _draw_arrow(axes, start, end, vertical=False):
    half = _SIZE[1] / 2 if vertical else _SIZE[0] / 2
    (x0, y0), (x1, y1) = start, end
    if vertical:
        y0, y1 = y0 - half, y1 + half
    else:
        x0, x1 = x0 + half, x1 - half
    axes.annotate("", (x1, y1), (x0, y0), arrowprops=_ARROW)
