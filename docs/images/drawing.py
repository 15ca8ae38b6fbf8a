"""Draws what terminals showed over some time as one animated SVG: CSS alone, light and dark, nothing from elsewhere.

A terminal's picture is what `tmux capture-pane -e` says of it. Each row is a strip of the different contents it had, and
moves by steps; so what does not change is there once. Boxes and blocks are drawn as shapes, for no two fonts have them alike.
Who asked for reduced motion sees one still.
"""

import re
from dataclasses import dataclass
from xml.sax.saxutils import escape

CELL_WIDTH = 7.8
CELL_HEIGHT = 17
FONT_SIZE = 13
BAR_HEIGHT = 26
MARGIN = 10
# How long the last picture stays before the first one comes again, in seconds.
PAUSE = 4.0

COLOURS = "krgybmcw"
STYLE = """
svg{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.o{fill:#fbfbfa;stroke:#c8ccd2}.h{fill:#eceef1}.t{fill:#57606a}.p{fill:#fbfbfa}
.f,.k,.w{fill:#24292f}.d{fill:#6e7781}.r{fill:#c4122f}.g{fill:#1a7f37}.y{fill:#9a6700}.b{fill:#0969da}.m{fill:#8250df}.c{fill:#0b7285}
.l{fill:none;stroke:#8c959f}.B{font-weight:700}.H{opacity:.45}.e{fill:#8c959f}
@media(prefers-color-scheme:dark){
.o{fill:#14171b;stroke:#343a42}.h{fill:#20252b}.t{fill:#9aa3ad}.p{fill:#14171b}
.f,.k,.w{fill:#e6e8eb}.d{fill:#8b949e}.r{fill:#ff6b7a}.g{fill:#56d364}.y{fill:#e3b341}.b{fill:#6cb6ff}.m{fill:#d2a8ff}.c{fill:#56d4dd}
.l{stroke:#5b636d}.e{fill:#5b636d}}
"""


@dataclass(frozen=True)
class Look:
    """How a cell looks: a colour's letter (f as the text, d dim), the ground's (None for the paper), bold, swapped."""

    ink: str = "f"
    ground: str | None = None
    bold: bool = False
    swapped: bool = False


def parse(line):
    """The cells of a line with escape sequences: pairs of character and look."""
    look, cells = Look(), []
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        sequence = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if sequence is None:
            cells += [(character, look) for character in re.sub(r"\x1b.|[\x00-\x1f]", "", part)]
            continue
        # A colour of the sixteen may come as one of 256.
        codes = re.sub(r"\b([34])8;5;(\d+)\b", of_sixteen, sequence[1])
        for code in [int(code or 0) for code in codes.split(";")]:
            look = after(look, code)
    return cells


def of_sixteen(match):
    what, colour = int(match[1]) * 10, int(match[2])
    if colour > 15:
        raise ValueError(f"a colour that is not drawn: {colour}")
    return str(what + colour if colour < 8 else what + 60 + colour - 8)


def after(look, code):
    ink, ground, bold, swapped = look.ink, look.ground, look.bold, look.swapped
    if code == 0:
        return Look()
    if code == 1:
        bold = True
    elif code == 2:
        ink = "d"
    elif code == 7:
        swapped = True
    elif code == 22:
        bold, ink = False, "f" if ink == "d" else ink
    elif code == 27:
        swapped = False
    elif 30 <= code <= 37:
        ink = COLOURS[code - 30]
    elif code == 90:
        ink = "d"
    elif 91 <= code <= 97:
        ink = COLOURS[code - 90]
    elif code == 39:
        ink = "f"
    elif 40 <= code <= 47:
        ground = COLOURS[code - 40]
    elif code == 49:
        ground = None
    return Look(ink, ground, bold, swapped)


# Of a cell: left, top, width, height, in eighths.
BLOCKS = {"█": (0, 0, 8, 8), "▀": (0, 0, 8, 4), "▐": (4, 0, 4, 8)}
BLOCKS |= {"▁▂▃▄▅▆▇"[n - 1]: (0, 8 - n, 8, n) for n in range(1, 8)}
BLOCKS |= {"▏▎▍▌▋▊▉"[n - 1]: (0, 0, n, 8) for n in range(1, 8)}
# From the middle: left, right, up, down.
LINES = {"─": "lr", "│": "ud", "┌": "rd", "┐": "ld", "└": "ru", "┘": "lu", "├": "rud", "┤": "lud"}


def row(cells):
    """One row's elements, its upper left corner at 0, 0."""
    while cells and cells[-1][0] == " " and cells[-1][1] == Look():
        cells.pop()
    out, at = [], 0
    while at < len(cells):
        kind, look = kind_of(cells[at][0]), cells[at][1]
        end = at
        while end < len(cells) and cells[end][1] == look and kind_of(cells[end][0]) == kind:
            end += 1
        out.append(run("".join(character for character, _ in cells[at:end]), kind, look, at))
        at = end
    return "".join(out)


def kind_of(character):
    if character in LINES:
        return "line"
    if character in BLOCKS:
        return "block"
    return "shade" if character == "░" else "text"


def number(value):
    return f"{value:.1f}".rstrip("0").rstrip(".")


def run(text, kind, look, column):
    x, width = column * CELL_WIDTH, len(text) * CELL_WIDTH
    ink, ground = (look.ground or "p", look.ink) if look.swapped else (look.ink, look.ground)
    out = ""
    if ground is not None:
        out += rectangle(ground, x, 0, width, CELL_HEIGHT)
    if kind == "line":
        return out + lines(text, x)
    if kind == "shade":
        return out + rectangle(f"{ink} H", x, 0, width, CELL_HEIGHT)
    if kind == "block":
        return out + blocks(text, x, ink)
    # Wide gaps are left out, and each piece has the width that it has on a terminal.
    weight = " B" if look.bold else ""
    for piece in re.finditer(r"\S+(?: \S+)*", text):
        at, length = x + piece.start() * CELL_WIDTH, len(piece[0]) * CELL_WIDTH
        out += f'<text class="{ink}{weight}" x="{number(at)}" y="13" textLength="{number(length)}">{escape(piece[0])}</text>'
    return out


def rectangle(classes, x, y, width, height):
    return f'<rect class="{classes}" x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"/>'


def blocks(text, x, ink):
    """Neighbours that are alike are one rectangle, and all of them one path."""
    path, at = "", 0
    while at < len(text):
        left, top, across, down = (part / 8 for part in BLOCKS[text[at]])
        end = at + 1
        while across == 1 and end < len(text) and text[end] == text[at]:
            end += 1
        from_x, width = x + (at + left) * CELL_WIDTH, (end - at if across == 1 else across) * CELL_WIDTH
        from_y, height = top * CELL_HEIGHT, down * CELL_HEIGHT
        path += f"M{number(from_x)} {number(from_y)}h{number(width)}v{number(height)}h-{number(width)}z"
        at = end
    return f'<path class="{ink}" d="{path}"/>'


def lines(text, x):
    middle, path, at = CELL_HEIGHT / 2, "", 0
    half = {"l": f"h-{CELL_WIDTH / 2}", "r": f"h{CELL_WIDTH / 2}", "u": f"v-{middle}", "d": f"v{middle}"}
    while at < len(text):
        end = at + 1
        while text[at] == "─" and end < len(text) and text[end] == "─":
            end += 1
        if text[at] == "─":
            path += f"M{number(x + at * CELL_WIDTH)} {middle}h{number((end - at) * CELL_WIDTH)}"
        else:
            centre = f"M{number(x + (at + 0.5) * CELL_WIDTH)} {middle}"
            path += "".join(centre + half[way] for way in LINES[text[at]])
        at = end
    return f'<path class="l" d="{path}"/>'


@dataclass
class Pane:
    """A terminal and what it showed: pairs of seconds and lines."""

    title: str
    columns: int
    rows: int
    pictures: list

    @property
    def height(self):
        return BAR_HEIGHT + self.rows * CELL_HEIGHT + MARGIN


def strip(pane, index, still, length, name):
    """A row over time: its elements and its rule, if it moves."""
    contents, moves = {}, []

    def place(lines):
        content = row(parse(lines[index])) if index < len(lines) else ""
        return contents.setdefault(content, len(contents))

    place(at(pane.pictures, still))
    for seconds, lines in pane.pictures:
        slot = place(lines)
        if not moves or moves[-1][1] != slot:
            moves.append((seconds, slot))
    step = (pane.columns + 2) * CELL_WIDTH
    body = "".join(
        f'<g transform="translate({number(slot * step)})">{content}</g>' if slot else content
        for content, slot in contents.items()
        if content
    )
    top = index * CELL_HEIGHT
    if not body:
        return "", ""
    if len(moves) < 2:
        return f'<g transform="translate(0 {top})">{body}</g>', ""
    keys = "".join(
        f"{seconds * 100 / length:.2f}%{{transform:translate({number(-slot * step)}px)}}" for seconds, slot in moves
    )
    rule = f"@keyframes {name}{{{keys}}}"
    return f'<g transform="translate(0 {top})"><g style="animation-name:{name}">{body}</g></g>', rule


def at(pictures, seconds):
    return [lines for begun, lines in pictures if begun <= seconds][-1]


def animation(title, panes, seconds, still):
    """The whole picture: panes one below the other, over so many seconds; `still` is the moment to be seen without motion."""
    length = seconds + PAUSE
    width = max(pane.columns for pane in panes) * CELL_WIDTH + 2 * MARGIN
    height = sum(pane.height for pane in panes) + MARGIN * (len(panes) - 1) + 2
    body, rules, top = "", "", 1
    for number_of, pane in enumerate(panes):
        inside = ""
        for index in range(pane.rows):
            elements, rule = strip(pane, index, still, length, f"r{number_of}-{index}")
            inside += elements
            rules += rule
        body += (
            f'<g transform="translate(0 {top})">'
            f'<rect class="o" x=".5" y=".5" rx="7" width="{number(width - 1)}" height="{pane.height - 1}"/>'
            f'<path class="h" d="M1 {BAR_HEIGHT - 5}v-13a7 7 0 0 1 7-7h{number(width - 16)}a7 7 0 0 1 7 7v13z"/>'
            f'<text class="t" x="{MARGIN}" y="15.5">{escape(pane.title)}</text>'
            f'<svg x="{MARGIN}" y="{BAR_HEIGHT}" width="{number(pane.columns * CELL_WIDTH)}" '
            f'height="{pane.rows * CELL_HEIGHT}">{inside}</svg></g>'
        )
        top += pane.height + MARGIN
    moving = (
        f"g[style]{{animation-duration:{length:.1f}s;animation-timing-function:step-end;animation-iteration-count:infinite}}"
        f"#time{{animation:time {length:.1f}s linear infinite;transform-box:fill-box}}"
        f"@keyframes time{{from{{transform:scaleX(0)}}{seconds * 100 / length:.1f}%,to{{transform:scaleX(1)}}}}"
        f"@media(prefers-reduced-motion:reduce){{g[style],#time{{animation:none}}}}"
    )
    total = number(height + 4)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {total}" width="{number(width)}" '
        f'height="{total}" role="img"><title>{escape(title)}</title><style>{STYLE.strip()}{moving}{rules}</style>{body}'
        f'<rect id="time" class="e" x="8" y="{number(height + 1)}" width="{number(width - 16)}" height="2"/></svg>\n'
    )
