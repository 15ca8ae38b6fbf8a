"""`curtsy prove` against reloads of other servers and of ours, each in the way that its own documentation names.

The charts go beside this file, the numbers and commands between the markers in docs/prove.md.
"""

import datetime
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
OWN = HERE / "reloads"
DOCUMENT = HERE.parent / "prove.md"
# Lost requests that the document lists.
SHOWN = 2
PROVE = "--conns 200 --think 0,2ms,50ms --seconds 12 --pause 3s"


@dataclass
class Server:
    name: str
    # What it says of its version, and what is cut from that.
    version: str
    # Commands of a shell in a directory of its own.
    build: str
    start: str
    reload: str
    port: int
    # The file with the number of the process that serves.
    pidfile: str


SERVERS = [
    Server(
        "nginx",
        "nginx -v 2>&1 | sed 's,.*nginx/,nginx ,'",
        "mkdir temp",
        "nginx -p . -e stderr -c nginx.conf",
        "nginx -p . -e stderr -c nginx.conf -s reload",
        9011,
        "nginx.pid",
    ),
    Server(
        "gin",
        "echo gin $(dpkg-query -W -f '${Version}' golang-github-gin-gonic-gin-dev | sed 's/-.*//'), $(go version | cut -d ' ' -f 3)",
        "GO111MODULE=off GOPATH=/usr/share/gocode go build -o gin gin.go",
        "./gin -listen 127.0.0.1:9012",
        "kill -HUP $(cat gin.pid)",
        9012,
        "gin.pid",
    ),
    Server(
        "gunicorn",
        "gunicorn --version | sed 's/[()]//g; s/version //'",
        "true",
        "gunicorn -b 127.0.0.1:9013 -w 2 -k gthread --threads 8 --keep-alive 60 -p gunicorn.pid --log-level error app:app",
        "kill -HUP $(cat gunicorn.pid)",
        9013,
        "gunicorn.pid",
    ),
    Server(
        "curtsy",
        "curtsy --version",
        "true",
        "curtsy demo --listen 127.0.0.1:9014 --control ./control --pidfile curtsy.pid",
        "curtsy reload --control ./control",
        9014,
        "curtsy.pid",
    ),
]


def make(curtsy):
    found = [result for result in (measure(server, curtsy) for server in SERVERS) if result]
    write("reloads", table(found))
    for result in found:
        if result["server"].name == "nginx":
            write("report", report(result))


def measure(server, curtsy):
    """What `curtsy prove` says of three reloads; `None`, with a word, where the server is not there."""
    directory = tempfile.mkdtemp(prefix=f"curtsy-{server.name}-")
    for file in OWN.iterdir():
        shutil.copy(file, directory)
    os.symlink(curtsy, os.path.join(directory, "curtsy"))
    environment = os.environ | {"PATH": f"{directory}:{os.environ['PATH']}", "RUST_BACKTRACE": "0"}

    def shell(command, **more):
        return subprocess.run(command, shell=True, cwd=directory, env=environment, text=True, capture_output=True, **more)

    built = shell(server.build, timeout=300)
    version = shell(server.version).stdout.strip()
    if built.returncode != 0 or not version:
        print(f"SKIPPED: {server.name}: {built.stderr.strip()}")
        return None
    running = subprocess.Popen(server.start, shell=True, cwd=directory, env=environment, stderr=subprocess.DEVNULL)
    try:
        answers(server.port)
        chart = f"prove-{server.name}.svg"
        command = f"curtsy prove http://127.0.0.1:{server.port}/ {PROVE} --svg {chart} \\\n    --while '{server.reload}'"
        proved = shell(command, timeout=120)
        shutil.copy(os.path.join(directory, chart), HERE / chart)
    finally:
        pid = os.path.join(directory, server.pidfile)
        if os.path.exists(pid):
            try:
                os.kill(int(Path(pid).read_text()), signal.SIGTERM)
            except ProcessLookupError:
                pass
        running.terminate()
        running.wait()
    shutil.rmtree(directory)
    result = {"version": version, "server": server, "command": command, "text": proved.stdout} | account(proved.stdout)
    print(f"{server.name}: {result['sent']} sent, {result['lost']} lost")
    return result


def account(text):
    """What the report says: the same run is in the chart."""
    sent, lost = re.search(r"requests +(\d+) sent, \d+ answered, (\d+) lost", text).groups()
    causes = re.findall(r"^ +lost +(\d+ \w+)$", text, re.M) + re.findall(r"^ +(?:refused|no connection) +\d+", text, re.M)
    return {
        "sent": int(sent),
        "lost": int(lost),
        "causes": ", ".join(re.sub(r" +", " ", cause.strip()) for cause in causes) or "–",
        "runs": int(re.search(r": run (\d+) times, failed 0 times", text)[1]),
        "opened": int(re.search(r"connections +(\d+) opened", text)[1]),
        "slowest": re.search(r"^  all {3,}\d.* (\S+ \S+)$", text, re.M)[1],
    }


def report(result):
    """As the terminal shows it, but for most of the lost requests that it lists."""
    lines = result["text"].splitlines()
    listed = [line for line in lines if line.startswith("  lost: request")]
    lines = [line for line in lines if line not in listed[SHOWN:]]
    note = f"\n({len(listed) - SHOWN} of the {len(listed)} lost requests that it lists are left out here)\n" if len(listed) > SHOWN else ""
    return "```text\n$ " + result["command"] + "\n" + "\n".join(lines) + "\n```\n" + note


def answers(port):
    end = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                if connection.recv(100).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"nobody answers at {port}")
        time.sleep(0.05)


def table(found):
    today = datetime.date.today().isoformat()
    lines = [
        f"On {today}, client and server together on {os.cpu_count()} cores:",
        "",
        "```sh",
        f"curtsy prove URL {PROVE} --while RELOAD",
        "```",
        "",
        "| server | RELOAD | reloads | requests | lost | causes | connections of 200 clients | slowest |",
        "|---|---|---:|---:|---:|---|---:|---:|",
    ]
    for result in found:
        lines.append(
            f"| {result['version']} | `{result['server'].reload}` | {result['runs']} | {result['sent']:,} | **{result['lost']:,}** | "
            f"{result['causes']} | {result['opened']:,} | {result['slowest']} |"
        )
    lines += ["", "They were started with", "", "```sh", *(f"{result['server'].start}" for result in found), "```", ""]
    for result in found:
        name = result["server"].name
        what = f"{result['lost']:,} requests lost" if result["lost"] else "nothing lost"
        lines += [f"![{name}, reloaded three times: answers per second, latency, {what}](images/prove-{name}.svg)", ""]
    return "\n".join(lines[:-1]) + "\n"


def write(name, text):
    """Puts it between its markers in the document."""
    document = DOCUMENT.read_text()
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
    changed, count = pattern.subn(lambda _: begin + text + end, document)
    if count != 1:
        raise ValueError(f"{DOCUMENT} has no markers for {name}")
    DOCUMENT.write_text(changed)
