//! A demo with an admin listener.

use curtsy_prove::child::Child;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::process::Command;

/// Nothing here takes longer, however busy the machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

pub(crate) struct Demo {
    pub(crate) child: Child,
    pub(crate) main: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Demo {
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_curtsy"));
        command
            .args(["demo", "--listen", "127.0.0.1:0", "--admin", "0"])
            .args(flags)
            .env("RUST_BACKTRACE", "0");
        let mut child = Child::spawn(command).unwrap();
        let (mut main, mut admin) = (None, None);
        for (part, place) in [("main listening on", &mut main), ("admin on", &mut admin)] {
            let line = child.wait_for_line(|line| line.contains(part), BOUND).await;
            let line = line.unwrap_or_else(|error| panic!("{error}\n{}", child.stderr()));
            let url = line.split("http://").nth(1).unwrap();
            *place = url.split_whitespace().next().unwrap().parse().ok();
        }
        Self {
            child,
            main: main.unwrap(),
            admin: admin.unwrap(),
        }
    }

    pub(crate) async fn line(&mut self, part: &str) -> String {
        let found = self
            .child
            .wait_for_line(|line| line.contains(part), BOUND)
            .await;
        found.unwrap_or_else(|error| panic!("no {part:?}: {error}\n{}", self.child.stderr()))
    }

    /// What the admin listener answers to `path`: status and body.
    pub(crate) fn ask(&self, path: &str) -> (u16, String) {
        get(self.admin, path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// One request on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(BOUND))?;
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::InvalidData)?;
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    Ok((
        status.ok_or(std::io::ErrorKind::InvalidData)?,
        body.to_owned(),
    ))
}
