"""Draw which room of the package imports which, from its source; the picture of CONTRIBUTING.md.

    python tools/draw_imports.py [package directory] [picture]

Rooms stand above everything they import. Prints the number of files, lines and arrows.
"""

import ast
import sys
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parents[1]


def imports(package):
    """Rooms of a package (top-level modules and folders), and which others each imports, also inside functions."""
    found, homes = {}, lazy_names(package)
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        names = found.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == package.name:
                names |= {homes.get(alias.name, alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package.name}."):
                names.add(node.module.split(".")[1])
    found.pop("__init__", None)
    return {room: sorted(names & set(found) - {room}) for room, names in found.items()}


def lazy_names(package):
    """Rooms of the names that the package itself offers, from the table in its `__init__`."""
    tables = [
        node.value
        for node in ast.walk(ast.parse((package / "__init__.py").read_text()))
        if isinstance(node, ast.Assign)
    ]
    homes = next(ast.literal_eval(table) for table in tables if isinstance(table, ast.Dict))
    return {name: module.split(".")[1] for name, module in homes.items()}


def levels(rooms):
    """Height of every room: one above the highest that it imports."""
    height = {}

    def climb(room, above=()):
        if room in above:
            raise SystemExit(f"{' -> '.join([*above, room])}: imports go round in a circle.")
        if room not in height:
            height[room] = 1 + max((climb(each, (*above, room)) for each in rooms[room]), default=-1)
        return height[room]

    for room in rooms:
        climb(room)
    return height


def draw(rooms, target):
    """Draw the rooms in rows by height, with an arrow to the highest rooms that each imports."""
    height, places = levels(rooms), {}
    for level in range(max(height.values()) + 1):
        row = sorted(room for room in rooms if height[room] == level)
        for place, room in enumerate(row):
            places[room] = (place - (len(row) - 1) / 2) * 2.1 + 0.35 * (-1) ** level, level
    figure, ax = plt.subplots(figsize=(9, 0.95 * len(set(height.values())) + 0.6))
    for room, names in rooms.items():
        indirect = {each for name in names for each in reached(rooms, name)}
        for name in set(names) - indirect:  # what others bring along anyway is left out
            ax.annotate(
                "",
                places[name],
                places[room],
                arrowprops={"arrowstyle": "->", "color": "0.6", "shrinkA": 14, "shrinkB": 14},
            )
    for room, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": "#e8eef4", "edgecolor": "#36648b"}
        ax.text(x, y, room, ha="center", va="center", fontsize=11, bbox=box)
    ax.set_xlim(min(x for x, _ in places.values()) - 1.2, max(x for x, _ in places.values()) + 1.2)
    ax.set_ylim(-0.5, max(height.values()) + 0.5)
    ax.axis("off")
    figure.savefig(target, bbox_inches="tight", facecolor="white")


def reached(rooms, room):
    """Every room below another."""
    return {each for name in rooms[room] for each in (name, *reached(rooms, name))}


def main(package=HERE / "src" / "dualgate", target=HERE / "docs" / "figures" / "imports.svg"):
    """Count and draw."""
    package = Path(package)
    rooms, files = imports(package), list(package.rglob("*.py"))
    lines = sum(len(path.read_text().splitlines()) for path in files)
    print(f"{len(files)} files, {lines:,} lines, {len(rooms)} rooms, {sum(map(len, rooms.values()))} arrows")
    draw(rooms, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
