//! An example as a running program, and what its own documentation says to do with it.
//!
//! Invariant: a program that was started is ended, whatever becomes of the test.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long anything may take that takes a moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The crate, where the examples expect their files.
pub(crate) const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// A running example.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
    /// The line that told the address.
    pub(crate) told: String,
}

impl Program {
    /// Starts an example on a port of the kernel's choice.
    pub(crate) fn start(name: &'static str) -> Self {
        Self::run(name, Command::new(built(name)))
    }

    /// Starts an example with arguments.
    pub(crate) fn with(name: &'static str, arguments: &[&str]) -> Self {
        let mut command = Command::new(built(name));
        command.args(arguments);
        Self::run(name, command)
    }

    /// Starts what will be an example.
    pub(crate) fn run(name: &'static str, mut command: Command) -> Self {
        let mut child = command
            .env("PORT", "0")
            .env_remove("CURTSY_MODE")
            .env_remove("GIN_MODE")
            .current_dir(HERE)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let (told, port) = address_line(&mut lines, name);
        Self {
            name,
            child,
            lines,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            told,
        }
    }

    /// The next line that tells an address: what a new process says.
    pub(crate) fn next_address(&mut self) -> SocketAddr {
        let (_, port) = address_line(&mut self.lines, self.name);
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_process(self.pid(), signal);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it as a service manager would: it has to end by itself, and well.
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        self.end();
    }

    /// Waits for the end of what was told to stop: a second signal would cut it.
    pub(crate) fn end(mut self) {
        let status = self.wait();
        assert!(status.success(), "{} ends with {status}", self.name);
    }

    /// Reads what it says until nobody is left who could say something.
    pub(crate) fn last_words(&mut self) -> String {
        let mut words = String::new();
        self.lines.read_to_string(&mut words).unwrap();
        words
    }

    /// Sends a request and reads the answer to its end.
    pub(crate) fn ask(&self, request: &str) -> String {
        ask(self.address, request)
    }

    /// Does what the example's documentation says: each `curl` line has to show what stands behind it as a
    /// comment. Says so if there is no curl.
    pub(crate) fn follow_its_documentation(&self) {
        if Command::new("curl").arg("--version").output().is_err() {
            println!("SKIPPED: curl is not installed");
            return;
        }
        let lines = curl_lines(self.name);
        assert!(!lines.is_empty(), "{} shows no use of curl", self.name);
        for (line, expected) in lines {
            let answer = self.curl(&line);
            let shown = answer.to_lowercase().contains(&expected.to_lowercase());
            assert!(
                shown,
                "{}: {line}\nanswers {answer:?}\nand not {expected:?}",
                self.name
            );
        }
    }

    /// What a line of the documentation shows here.
    fn curl(&self, line: &str) -> String {
        let line = line.replacen("curl ", "curl -sS --max-time 60 ", 1);
        let mut here = line.clone();
        for port in ["127.0.0.1:8080", "127.0.0.1:9000", "127.0.0.1:3000"] {
            here = here.replace(port, &self.address.to_string());
        }
        assert_ne!(here, line, "{} is asked on no known port", self.name);
        let output = Command::new("sh")
            .args(["-c", &here])
            .current_dir(HERE)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{here}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub(crate) fn signal_process(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Sends a request and reads the answer to its end.
pub(crate) fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = send(address, request);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Sends a request whose answer ends its connection.
pub(crate) fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream
}

/// Reads on to the line with the address; its port.
fn address_line(lines: &mut impl BufRead, name: &str) -> (String, u16) {
    loop {
        let mut line = String::new();
        let read = lines.read_line(&mut line).unwrap();
        assert!(read > 0, "{name} ended before it listened");
        let Some((_, address)) = line
            .split_once("listening and serving on ")
            .or_else(|| line.split_once("listening on "))
        else {
            continue;
        };
        let address = address.split([',', ' ', '\n']).next().unwrap();
        let Some((_, port)) = address.rsplit_once(':') else {
            continue;
        };
        let port = port.parse().unwrap();
        return (line, port);
    }
}

/// The source of an example.
fn source(name: &str) -> PathBuf {
    Path::new(HERE)
        .join("examples")
        .join(name)
        .with_extension("rs")
}

/// The lines with curl in an example's documentation, and what they show.
pub(crate) fn curl_lines(name: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(source(name)).unwrap();
    let documentation = text.lines().map_while(|line| line.strip_prefix("//!"));
    let curl = documentation.filter_map(|line| {
        let line = line.trim();
        let (command, shown) = line.rsplit_once(" # ")?;
        command.starts_with("curl ").then(|| {
            // What is said after a comma or a colon is for people.
            let shown = shown.split(", five").next().unwrap_or(shown);
            let shown = shown.split(": open").next().unwrap_or(shown);
            (command.trim().to_owned(), shown.trim().to_owned())
        })
    });
    curl.collect()
}

/// The built example. `cargo test` builds examples, but not when one test is asked for.
pub(crate) fn built(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let directory = profile.join("examples");
        let made = |path: PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
        let is_stale = |name: &String| made(directory.join(name)) < made(source(name));
        if names().iter().any(is_stale) {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--package", "curtsy", "--examples"]);
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success());
        }
        directory
    });
    directory.join(name)
}

/// Every example there is.
pub(crate) fn names() -> Vec<String> {
    let files = std::fs::read_dir(Path::new(HERE).join("examples")).unwrap();
    let name = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.unwrap().path();
        let is_program = path.extension().is_some_and(|extension| extension == "rs");
        is_program.then(|| path.file_stem().unwrap().to_str().unwrap().to_owned())
    };
    let mut names: Vec<String> = files.filter_map(name).collect();
    names.sort();
    names
}
