"""The structure of the package, read from its modules: figures and a drawing.

    python doc/structure.py [PACKAGE_FOLDER]     prints the figures
    draw(fname)                                  the drawing of doc/architecture.rst

A room is a module of the front row or a wing (a folder). A door is an import from one
room in another. Rooms are stacked by the longest way down: imports point down, unless
there is a circle.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "mne_deepsif"


def read_imports(package=PACKAGE):
    """Return the modules of the package that each module imports, by dotted name."""
    files = {_dotted(file, package): file for file in sorted(package.rglob("*.py"))}
    return {
        name: {
            target
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.level
            for target in _targets(node, name, file, files)
            if target not in (name, "")  # "": the package's version
        }
        for name, file in files.items()
    }


def _dotted(file, package):
    parts = file.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(node, name, file, files):
    """Yield the modules that an import statement names."""
    base = name.split(".") if name else []
    up = node.level - (file.name == "__init__.py")
    base = base[: len(base) - up] if up else base
    base = [*base, *(node.module or "").split(".")] if node.module else base
    for alias in node.names:
        inner = ".".join([*base, alias.name])
        yield inner if inner in files else ".".join(base)


def to_rooms(imports):
    """Return the rooms that each room imports."""
    rooms = {}
    for name, targets in imports.items():
        room = name.split(".")[0]
        if not room:  # the package itself: names for users
            continue
        doors = {target.split(".")[0] for target in targets} - {room, ""}
        rooms.setdefault(room, set()).update(doors)
    return rooms


def find_circles(rooms):
    """Return the groups of rooms that import one another."""
    reach = {room: _reach(room, rooms) for room in rooms}
    groups = {
        frozenset(other for other in reach[room] if room in reach[other])
        for room in rooms
    }
    return [sorted(group) for group in groups if len(group) > 1]


def _reach(room, rooms):
    found, new = set(), {room}
    while new:
        found |= new
        new = set().union(*(rooms[one] for one in new)) - found
    return found


def find_layers(rooms):
    """Return the layer of each room: 0 imports nothing; rooms in circles share one."""
    circles = find_circles(rooms)
    layers = dict.fromkeys(rooms, 0)
    for _ in rooms:
        for room, doors in rooms.items():
            below = [d for d in doors if not any({room, d} <= {*c} for c in circles)]
            layers[room] = max([layers[room], *(layers[d] + 1 for d in below)])
    return layers


def measure(package=PACKAGE):
    """Return the figures of the structure."""
    rooms = to_rooms(read_imports(package))
    layers = find_layers(rooms)
    return {
        "rooms": len(rooms),
        "imports between them": sum(map(len, rooms.values())),
        "layers": max(layers.values()) + 1,
        "circles": len(find_circles(rooms)),
        "imports that run upwards": sum(
            layers[door] >= layers[room] for room in rooms for door in rooms[room]
        ),
    }


def draw(fname, package=PACKAGE):
    """Draw the rooms as boxes, layer by layer, with an arrow for each import."""
    import matplotlib.pyplot as plt

    rooms = to_rooms(read_imports(package))
    rooms = {r: doors for r, doors in rooms.items() if not _is_alias(r, package)}
    layers = find_layers(rooms)
    wings = {path.name for path in package.iterdir() if path.is_dir()}
    place = {}
    for layer in range(max(layers.values()) + 1):
        row = sorted(room for room in rooms if layers[room] == layer)
        for index, room in enumerate(row):
            place[room] = ((index + 0.5) / len(row) + 0.05 * (layer % 2), layer)
    figure, axes = plt.subplots(figsize=(8, 1.0 * len(set(layers.values()))))
    for room, doors in rooms.items():
        for door in doors:
            axes.annotate(
                "",
                place[door],
                place[room],
                arrowprops=dict(
                    arrowstyle="->", color="0.7", shrinkA=12, shrinkB=12, lw=0.8
                ),
            )
    for room, (x, y) in place.items():
        wing = room in wings
        axes.text(
            *(x, y, f"{room}/" if wing else room),
            ha="center",
            va="center",
            family="monospace",
            weight="bold" if wing else "normal",
            bbox=dict(
                boxstyle="round", fc="#dce9f5" if wing else "white", ec="#4878a8"
            ),
        )
    axes.set(xlim=(-0.05, 1.1), ylim=(-0.5, max(layers.values()) + 0.5))
    axes.axis("off")
    figure.savefig(fname, bbox_inches="tight")
    plt.close(figure)


def _is_alias(room, package):
    """Tell a module that only passes names on."""
    file = package / f"{room}.py"
    if not file.is_file():
        return False
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return all(isinstance(n, ast.Expr | ast.ImportFrom | ast.Assign) for n in body)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    for key, value in measure(folder).items():
        print(f"{key}: {value}")
