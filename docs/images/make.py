#!/usr/bin/env python3
"""Makes the pictures of README and docs from the running program: python3 docs/images/make.py [drain restart page reloads]

  drain, restart   what terminals show, as animated SVG: `curtsy top` above, clients below
  page             the admin page in Chromium, by page.mjs
  reloads          `curtsy prove` against reloads of nginx, gin, gunicorn and of ours, by reloads.py

Nothing is staged but the order of events: commands are typed into shells, and what the shells show is drawn. It needs tmux,
curl, Chromium with playwright-core, nginx, Go with Debian's gin, gunicorn; and port 9000, with the ones above it.
`cargo build --release` comes first, or --curtsy says where the program is.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import drawing  # noqa: E402
import reloads  # noqa: E402
from terminal import Recording, Terminal  # noqa: E402


COLUMNS = 114


class Stage:
    """A directory, a server at port 9000, and terminals; all of them end with it."""

    def __init__(self, curtsy, *flags):
        self.directory = tempfile.mkdtemp(prefix="curtsy-pictures-")
        binaries = os.path.join(self.directory, "bin")
        os.mkdir(binaries)
        os.symlink(curtsy, os.path.join(binaries, "curtsy"))
        self.environment = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        self.environment |= {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            # Here the control socket is, and nobody else's.
            "XDG_RUNTIME_DIR": self.directory,
        }
        self.terminals, self.processes = [], []
        self.pidfile = os.path.join(self.directory, "pid")
        self.log = open(os.path.join(self.directory, "log"), "w+")
        self.start("curtsy", "demo", *flags, "--pidfile", self.pidfile, stderr=self.log)
        self.said("main listening")

    def start(self, *command, **more):
        process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, **more)
        self.processes.append(process)
        return process

    def said(self, part, seconds=60):
        end = time.monotonic() + seconds
        while part not in Path(self.log.name).read_text():
            if time.monotonic() > end:
                raise TimeoutError(f"no {part!r} in\n{Path(self.log.name).read_text()}")
            time.sleep(0.02)

    def terminal(self, name, rows):
        terminal = Terminal(self.directory, name, COLUMNS, rows, self.environment)
        self.terminals.append(terminal)
        return terminal

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for terminal in self.terminals:
            terminal.close()
        # A restart's last process is nobody's child here.
        if os.path.exists(self.pidfile):
            try:
                os.kill(int(Path(self.pidfile).read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.directory)


def draw(name, title, titles, recording, seconds, still):
    panes = [
        drawing.Pane(text, terminal.columns, terminal.rows, pictures)
        for text, terminal, pictures in zip(titles, recording.terminals, recording.pictures)
    ]
    svg = drawing.animation(title, panes, seconds, still)
    (HERE / f"{name}.svg").write_text(svg)
    print(f"{name}.svg: {len(svg)} bytes, {seconds:.1f} s")


def drain(curtsy):
    """A server with a load, a slow request and an event stream is told to drain from `curtsy top`."""
    with Stage(curtsy, "--deadline", "15s") as stage:
        top, slow, prove = stage.terminal("top", 19), stage.terminal("slow", 5), stage.terminal("prove", 6)
        stage.start("curl", "-sN", "http://127.0.0.1:9000/events", stdout=subprocess.DEVNULL)
        top.type("curtsy top --interval 250ms")
        top.shows("SERVING")
        prove.type("curtsy prove http://127.0.0.1:9000/ --conns 40 --think 20ms,500ms --seconds 60 | grep -e requests -e refused")
        prove.shows("answered (")
        time.sleep(2)
        recording = Recording([top, slow, prove])
        slow.type("curl -i -s '127.0.0.1:9000/slow?ms=9000' | grep -i -e HTTP -e connection -e slept")
        top.shows("GET /slow")
        time.sleep(2)
        top.press("d")
        top.shows("y/n")
        time.sleep(1.2)
        top.press("y")
        top.shows("DRAINING")
        still = recording.now() + 2.5
        prove.shows(" sent, ")
        top.shows("GONE")
        slow.shows("slept 9000 ms")
        time.sleep(1)
        seconds = recording.stop()
    titles = [
        "an operator: curtsy top, then d and y",
        "a client whose request takes nine seconds",
        "forty clients that retry nothing",
    ]
    title = "curtsy top while a server drains: idle connections go, a slow request is waited for and answered, nothing is lost"
    draw("drain", title, titles, recording, seconds, still)


def restart(curtsy):
    """A server under load restarts twice in place, seen by `curtsy top`, told by `curtsy reload`, counted by `curtsy prove`."""
    with Stage(curtsy, "--deadline", "15s", "--bake-after", "700ms") as stage:
        top, prove = stage.terminal("top", 17), stage.terminal("prove", 18)
        top.type("curtsy top --interval 250ms")
        top.shows("SERVING")
        recording = Recording([top, prove])
        prove.type("curtsy prove http://127.0.0.1:9000/pid --conns 40 --think 20ms,500ms --seconds 7 --pause 2700ms \\")
        prove.type("  --while 'curtsy reload' --pids | grep -e requests -e connections -e pid=")
        top.shows("generation 0 → 1")
        still = recording.now() + 1
        prove.shows(" sent, ")
        time.sleep(1.5)
        seconds = recording.stop()
    titles = ["an operator: curtsy top", "forty clients that retry nothing, while curtsy reload runs again and again"]
    title = "curtsy top and curtsy prove while a server restarts twice under load: a new process takes over, nothing is lost"
    draw("restart", title, titles, recording, seconds, still)


def page(curtsy):
    """The admin page while a server with all kinds of load serves, and while it drains."""
    modules = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=True).stdout.strip()
    with Stage(curtsy, "--admin", "9001", "--deadline", "60s") as stage:
        for path, connections in [("/", "30"), ("/slow?ms=20", "8"), ("/slow?ms=200", "4")]:
            load = ["--conns", connections, "--think", "20ms,200ms,1s", "--seconds", "60"]
            stage.start("curtsy", "prove", f"http://127.0.0.1:9000{path}", *load, stdout=subprocess.DEVNULL)
        script = [str(HERE / "page.mjs"), modules, "http://127.0.0.1:9001", "http://127.0.0.1:9000", str(HERE)]
        subprocess.run(["node", *script], check=True, timeout=180)


SUBJECTS = {"drain": drain, "restart": restart, "page": page, "reloads": reloads.make}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", nargs="*", help="which of them; all, if none is named")
    parser.add_argument("--curtsy", default=ROOT / "target/release/curtsy", type=Path)
    arguments = parser.parse_args()
    unknown = set(arguments.subject) - set(SUBJECTS)
    if unknown:
        parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    for name in arguments.subject or SUBJECTS:
        SUBJECTS[name](str(arguments.curtsy.resolve(strict=True)))


if __name__ == "__main__":
    main()
