#!/usr/bin/env python3
"""Checks that the pictures are still what the scripts beside this file make: python3 docs/images/check.py CURTSY

Recording takes a terminal, a browser, other servers and some minutes; this takes a second and none of them:
  - what the recordings show is taken out of the committed SVG files and drawn again, byte for byte;
  - a few lines of a terminal are drawn as they always were;
  - the document's table, its report and the charts tell of the same run, as `reloads.py` reads it;
  - the commands that are typed have no flag that CURTSY does not know, and the page has what `page.mjs` looks at.
"""

import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import drawing  # noqa: E402
import make  # noqa: E402
import reloads  # noqa: E402


def same(found, expected, what):
    if found != expected:
        at = next((n for n, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
        raise SystemExit(f"{what}: {found[at - 40:at + 80]!r} instead of {expected[at - 40:at + 80]!r}")


def recordings():
    """Each animated picture, drawn again from what it shows."""
    for name in ("drain", "restart"):
        svg = (HERE / f"{name}.svg").read_text()
        title, length, share = re.search(
            r"<title>(.*?)</title>.*animation:time ([\d.]+)s .*?transform:scaleX\(0\)\}([\d.]+)%", svg, re.S
        ).groups()
        # The length is written to a tenth of a second; the share of the pause makes it more precise.
        lengths = [float(length) + n / 100 for n in range(-5, 6)]
        length = next(all for all in lengths if f"{(all - drawing.PAUSE) * 100 / all:.1f}" == share)
        panes = [pane(svg, number, part, length) for number, part in enumerate(svg.split('<rect class="o"')[1:])]
        moments = sorted({seconds for pane in panes for seconds, _ in pane.pictures})
        # In the still every row shows its first content.
        still = next(
            moment
            for moment in moments
            if all(
                line.is_first for pane in panes for line in drawing.at(pane.pictures, moment)
            )
        )
        parse, row = drawing.parse, drawing.row
        try:
            # What a row shows is drawn already.
            drawing.parse, drawing.row = str, str
            again = drawing.animation(unescape(title), panes, length - drawing.PAUSE, still)
        finally:
            drawing.parse, drawing.row = parse, row
        same(again, svg, f"{name}.svg is not what drawing.py makes of its recording; make it anew")


class Content(str):
    """What a row shows, and whether it is what the row shows in the still."""

    is_first = False


def pane(svg, number, part, length):
    title = unescape(re.search(r'<text class="t"[^>]*>(.*?)</text>', part)[1])
    width, height = re.search(r'<svg x="\d+" y="\d+" width="([\d.]+)" height="(\d+)">', part).groups()
    columns, rows = round(float(width) / drawing.CELL_WIDTH), int(height) // drawing.CELL_HEIGHT
    step = (columns + 2) * drawing.CELL_WIDTH
    shown = []
    for index in range(rows):
        top = index * drawing.CELL_HEIGHT
        moving = rf'<g transform="translate\(0 {top}\)"><g style="animation-name:r{number}-{index}">(.*?)</g></g>(?=<g transform="translate\(0 |</svg>)'
        found = re.search(moving, part, re.S)
        if found is None:
            still = re.search(rf'<g transform="translate\(0 {top}\)">((?:(?!<g).)*?)</g>', part, re.S)
            shown.append([(0.0, content(still[1] if still else "", 0))])
            continue
        first, *others = re.split(r'<g transform="translate\(([\d.]+)\)">', found[1])
        slots = {0: first}
        for x, body in zip(others[::2], others[1::2]):
            slots[round(float(x) / step)] = body.removesuffix("</g>")
        keys = re.search(rf"@keyframes r{number}-{index}\{{((?:[\d.]+%\{{[^}}]*\}})+)\}}", svg)[1]
        moves = re.findall(r"([\d.]+)%\{transform:translate\((-?[\d.]+)px\)\}", keys)
        slot_of = {percent: round(-float(x) / step) for percent, x in moves}
        shown.append([(float(p) * length / 100, content(slots.get(slot, ""), slot)) for p, slot in slot_of.items()])
    moments = sorted({seconds for row in shown for seconds, _ in row})
    pictures = [(moment, [drawing.at(row, moment) for row in shown]) for moment in moments]
    return drawing.Pane(title, columns, rows, pictures)


def content(text, slot):
    made = Content(text)
    made.is_first = slot == 0
    return made


LINES = {
    "": "",
    "$ curtsy status  ": '<text class="f" x="0" y="13" textLength="117">$ curtsy status</text>',
    "\x1b[1;32mOK\x1b[0m \x1b[2ma<b\x1b[22m": '<text class="g B" x="0" y="13" textLength="15.6">OK</text>'
    '<text class="d" x="23.4" y="13" textLength="23.4">a&lt;b</text>',
    "\x1b[7m x \x1b[27m": '<rect class="f" x="0" y="0" width="23.4" height="17"/>'
    '<text class="p" x="7.8" y="13" textLength="7.8">x</text>',
    "┌──┐ \x1b[38;5;9m█▄\x1b[39m░": '<path class="l" d="M3.9 8.5h3.9M3.9 8.5v8.5M7.8 8.5h15.6M27.3 8.5h-3.9M27.3 8.5v8.5"/>'
    '<path class="r" d="M39 0h7.8v17h-7.8zM46.8 8.5h7.8v8.5h-7.8z"/>'
    '<rect class="f H" x="54.6" y="0" width="7.8" height="17"/>',
}


def lines():
    """What a terminal shows, as it is drawn."""
    for line, drawn in LINES.items():
        same(drawing.row(drawing.parse(line)), drawn, f"{line!r} is drawn otherwise")


def document():
    """One run of each server: in the table, in the report, in the chart."""
    text = reloads.DOCUMENT.read_text()
    block = re.search(r"<!-- report:begin -->\n(.*?)<!-- report:end -->", text, re.S)[1]
    nginx = reloads.account(block)
    runs = re.findall(r"^\| .*? \| `(.*?)` \| (\d+) \| ([\d,]+) \| \*\*([\d,]+)\*\* \| (.*?) \| ([\d,]+) \| (.*?) \|$", text, re.M)
    same([run[0] for run in runs], [server.reload for server in reloads.SERVERS], "the table's servers")
    for server, (_, times, sent, lost, causes, opened, slowest) in zip(reloads.SERVERS, runs):
        sent, lost = int(sent.replace(",", "")), int(lost.replace(",", ""))
        title = re.search(r"<title>(.*?)</title>", (HERE / f"prove-{server.name}.svg").read_text())[1]
        told = f"GET http://127.0.0.1:{server.port}/: {sent} sent, {sent - lost} answered, {lost} lost"
        same(title, told, f"prove-{server.name}.svg")
        if server.name == "nginx":
            row = {"sent": sent, "lost": lost, "causes": causes, "slowest": slowest}
            row |= {"runs": int(times), "opened": int(opened.replace(",", ""))}
            same(sorted(map(str, nginx.items())), sorted(map(str, row.items())), "the report's run")
        if server.start not in text:
            raise SystemExit(f"docs/prove.md does not say how {server.name} was started")


def commands(curtsy):
    """Every command of ours that a script types."""
    scripts = "".join((HERE / name).read_text() for name in ("make.py", "reloads.py"))
    known = {}
    for line in scripts.splitlines():
        for name, rest in re.findall(r'curtsy (demo|prove|top|reload|status)\b([^|"\x27]*)', line):
            known.setdefault(name, set()).update(re.findall(r"--[a-z][a-z0-9-]*", rest))
    # What is given to the demo as arguments, and the lines that are put together.
    known["demo"] |= set(re.findall(r'"(--[a-z-]+)"', re.sub(r"(?s)parser.*", "", scripts))) - {"--conns", "--think", "--seconds"}
    known["prove"] |= set(re.findall(r"--[a-z][a-z0-9-]*", reloads.PROVE)) | {"--svg", "--while", "--pids"}
    for name, flags in known.items():
        said = subprocess.run([curtsy, name, "--help"], capture_output=True, text=True, check=True).stdout
        missing = {flag for flag in flags if not re.search(rf"{flag}\b", said)}
        if missing:
            raise SystemExit(f"curtsy {name} does not know {', '.join(sorted(missing))}")
    if not known["prove"] or not known["demo"] or "--interval" not in known["top"]:
        raise SystemExit(f"the commands were not found: {known}")


def page():
    """What the browser is told to look at is on the page."""
    script = (HERE / "page.mjs").read_text()
    html = (ROOT / "crates/curtsy-server/src/admin/page.html").read_text()
    wanted = set(re.findall(r'\btext\("([a-z-]+)"', script)) | set(re.findall(r'["\'`]#([a-z-]+)', script))
    if not wanted:
        raise SystemExit("page.mjs looks at nothing")
    missing = {name for name in wanted if f'id="{name}"' not in html and f"id={name}" not in html}
    if missing:
        raise SystemExit(f"the page has no {', '.join(sorted(missing))}")
    for name in ("light", "dark", "phone"):
        if (HERE / f"page-{name}.png").read_bytes()[:8] != b"\x89PNG\r\n\x1a\n":
            raise SystemExit(f"page-{name}.png is no picture")
    node = shutil.which("node")
    if node is None:
        print("SKIPPED: no node to read page.mjs")
    else:
        subprocess.run([node, "--check", str(HERE / "page.mjs")], check=True)


def main():
    curtsy = sys.argv[1]
    checks = [recordings, lines, document, lambda: commands(curtsy), page]
    for check in checks:
        check()
    if set(make.SUBJECTS) != {"drain", "restart", "page", "reloads"}:
        raise SystemExit("make.py makes something that is not checked here")
    print(f"{len(checks)} checks passed")


if __name__ == "__main__":
    main()
