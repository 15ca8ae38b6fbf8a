"""A terminal with a shell in it (tmux, with a server of its own), and what it showed over time."""

import os
import subprocess
import threading
import time

# How often it is looked at.
LOOK = 0.1


class Terminal:
    def __init__(self, directory, name, columns, rows, environment):
        self.socket = os.path.join(directory, f"{name}.tmux")
        self.columns, self.rows = columns, rows
        self.environment = environment
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "bash --norc --noprofile")
        self.tmux("set", "-g", "status", "off")
        self.type("PS1='$ '; clear")
        while not any(line.startswith("$") for line in self.lines()):
            time.sleep(LOOK)

    def tmux(self, *arguments):
        command = ["tmux", "-u", "-S", self.socket, *arguments]
        return subprocess.run(command, check=True, env=self.environment, capture_output=True, text=True).stdout

    def type(self, line):
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def press(self, key):
        self.tmux("send-keys", key)

    def lines(self, *arguments):
        return self.tmux("capture-pane", "-p", *arguments).rstrip("\n").split("\n")

    def shows(self, part, seconds=60):
        """Waits until that is on the screen."""
        end = time.monotonic() + seconds
        while not any(part in line for line in self.lines()):
            if time.monotonic() > end:
                raise TimeoutError(f"no {part!r} in\n" + "\n".join(self.lines()))
            time.sleep(LOOK / 2)

    def close(self):
        self.tmux("kill-server")


class Recording:
    """Looks at terminals until it is stopped: each one's pictures, as pairs of seconds and lines."""

    def __init__(self, terminals):
        self.terminals = terminals
        self.pictures = [[] for _ in terminals]
        self.begun = time.monotonic()
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while not self.is_over.wait(LOOK):
            for terminal, pictures in zip(self.terminals, self.pictures):
                lines = terminal.lines("-e")
                if not pictures or pictures[-1][1] != lines:
                    pictures.append((self.now() if pictures else 0.0, lines))

    def now(self):
        return round(time.monotonic() - self.begun, 2)

    def stop(self):
        """The recording's length in seconds."""
        self.is_over.set()
        self.thread.join()
        return self.now()
