//! What is drawn on a terminal, seen through a real one: tmux, with a server of its own.

use crate::server::{BOUND, CURTSY, Server};
use std::process::{Command, Output};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A terminal of 80 columns and 24 lines with one program in it.
struct Terminal {
    directory: TempDir,
}

impl Terminal {
    /// `None` where there is no tmux.
    fn start(command: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let this = Self { directory };
        let mut tmux = this.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
        ]);
        // The shell stays, so that what was said last can be read.
        tmux.arg(format!("{command}; echo \"exit=$?\"; exec sleep 600"));
        let Ok(output) = tmux.output() else {
            println!("SKIPPED: no tmux to have a terminal with");
            return None;
        };
        assert!(output.status.success(), "{output:?}");
        Some(this)
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command
            .arg("-u")
            .arg("-S")
            .arg(self.directory.path().join("tmux"));
        command.args(arguments);
        command.env_remove("TMUX").env("RUST_BACKTRACE", "0");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.tmux(arguments).output().unwrap()
    }

    fn press(&self, keys: &[&str]) {
        for key in keys {
            assert!(self.run(&["send-keys", key]).status.success());
        }
    }

    fn screen(&self) -> String {
        let output = self.run(&["capture-pane", "-p"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until all of that is on the screen.
    async fn shows(&self, parts: &[&str]) -> String {
        let waiting = async {
            loop {
                let screen = self.screen();
                if parts.iter().all(|part| screen.contains(part)) {
                    return screen;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(BOUND, waiting).await {
            Ok(screen) => screen,
            Err(_) => panic!("no {parts:?} in\n{}", self.screen()),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its own, which nobody else has the socket of.
        let _ = self.tmux(&["kill-server"]).output();
    }
}

fn command(arguments: &str, server: &Server) -> String {
    format!(
        "{CURTSY} {arguments} --control {}",
        server.control().display()
    )
}

#[tokio::test]
async fn top_shows_a_server_and_steers_it() {
    let flags = [
        "--tls",
        "self-signed",
        "--mode",
        "plain",
        "--deadline",
        "10m",
    ];
    let mut server = Server::demo(&flags).await;
    let _parked = server.parked().await;
    let active = server.straggler().await;
    let Some(terminal) = Terminal::start(&command("top --interval 100ms", &server)) else {
        return;
    };
    let address = format!("main {} plain", server.address);
    let pid = format!("server pid {} · generation 0", server.child.pid().unwrap());
    let peer = active.local_addr().unwrap().to_string();
    terminal
        .shows(&[
            "SERVING",
            &pid,
            &address,
            "Connections: 2 open",
            "Under way: 1",
            &peer,
            "GET /slow?ms=6",
            "q quit",
        ])
        .await;
    // A mode is chosen, asked about, and changed.
    terminal.press(&["s"]);
    terminal.shows(&["switch ◂ main ▸ to:"]).await;
    terminal.press(&["b"]);
    terminal.shows(&["switch main to both? y/n"]).await;
    terminal.press(&["y"]);
    let both = format!("main {} both", server.address);
    terminal.shows(&[&both, "SERVING"]).await;
    // Not without a yes.
    terminal.press(&["d"]);
    terminal.shows(&["drain? y/n"]).await;
    terminal.press(&["n"]);
    terminal.shows(&["q quit", "SERVING"]).await;
    // A reload: the old process drains, and waits for its request.
    terminal.press(&["r", "y"]);
    terminal
        .shows(&["0 → 1 serves (pid ", "DRAINING", "cut in 9 min"])
        .await;
    drop(active);
    let exit = server.child.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(0));
    // Then the new one is seen.
    terminal
        .shows(&["SERVING", "generation 1 ·", "Under way: 0"])
        .await;
    terminal.press(&["d", "y"]);
    terminal
        .shows(&["GONE", "drained in", "looking for whoever serves now"])
        .await;
    terminal.press(&["q"]);
    // The terminal is an ordinary one again.
    terminal.shows(&["exit=0"]).await;
}

#[tokio::test]
async fn drain_shows_a_bar_that_moves() {
    let mut server = Server::demo(&["--deadline", "10m"]).await;
    let active = server.straggler().await;
    let Some(terminal) = Terminal::start(&command("drain --wait", &server)) else {
        return;
    };
    // No event comes meanwhile; the bar moves all the same.
    terminal
        .shows(&["░]", "cut in 9 min 59 s", "1 of 1 open"])
        .await;
    terminal.shows(&["cut in 9 min 58 s"]).await;
    drop(active);
    let screen = terminal.shows(&["drained in", "exit=0"]).await;
    assert!(!screen.contains("cut in"), "the bar is gone: {screen}");
    assert_eq!(server.end().await.status.code(), Some(0));
}

/// The demo where most people meet it: started in a terminal, ended with Ctrl-C.
#[tokio::test]
async fn ctrl_c_drains_the_demo_with_a_bar() {
    // The shell outlives it.
    let demo = format!("trap : INT; {CURTSY} demo --listen 127.0.0.1:0 --deadline 10m");
    let Some(terminal) = Terminal::start(&demo) else {
        return;
    };
    let screen = terminal.shows(&["listening on http://"]).await;
    let address = screen.split("http://").nth(1).unwrap();
    let address = address.split_whitespace().next().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"GET /slow?ms=3000 HTTP/1.1\r\nHost: x\r\n\r\n";
    client.write_all(request).await.unwrap();
    // Answered on another connection: the first request is under way by now.
    let mut other = TcpStream::connect(address).await.unwrap();
    let request = b"GET /slow?ms=200 HTTP/1.0\r\n\r\n";
    other.write_all(request).await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    terminal.press(&["C-c"]);
    terminal
        .shows(&["draining [", "of 600 s  waiting for 1 active"])
        .await;
    answer.clear();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("slept 3000 ms\n"), "{answer}");
    let screen = terminal.shows(&["curtsy: drained in", "exit=0"]).await;
    assert!(!screen.contains("draining ["), "the bar is gone: {screen}");
}

#[tokio::test]
async fn prove_leaves_the_terminal_to_its_command() {
    let server = Server::demo(&[]).await;
    let command = format!(
        "{CURTSY} prove http://{}/ --conns 2 --seconds 2 --pause 500ms \
         --while 'echo it begins; sleep 0.5; echo it ends' | tail -1",
        server.address
    );
    let Some(terminal) = Terminal::start(&command) else {
        return;
    };
    // Beside the line that moves, not in it.
    let screen = terminal.shows(&["it ends", "exit=0"]).await;
    let said: Vec<&str> = screen
        .lines()
        .filter(|line| line.contains("it begins") || line.contains("it ends"))
        .collect();
    assert_eq!(
        said,
        ["it begins", "it ends"].repeat(said.len() / 2),
        "{screen}"
    );
    server.drains().await;
}

#[tokio::test]
async fn top_without_a_terminal_or_a_server_says_so() {
    let server = Server::demo(&[]).await;
    let (code, _, err) = server.run(&["top"]).await;
    assert!(code == Some(2) && err.contains("needs a terminal"), "{err}");
    server.drains().await;
    let Some(terminal) = Terminal::start(&format!("{CURTSY} top --control /nowhere/control"))
    else {
        return;
    };
    terminal
        .shows(&["cannot reach a server at /nowhere/control", "exit=1"])
        .await;
}
