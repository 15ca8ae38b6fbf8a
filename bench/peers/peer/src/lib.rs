//! What every peer written in Rust has in common: its flags, its listening socket, its answers and its allocator.
//!
//! The allocator is the one the `curtsy` binary uses, so that no difference between two servers is one of allocators.

#![forbid(unsafe_code)]

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process,
};

use socket2::{Domain, Protocol, Socket, Type};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The body of `/`.
pub const HELLO: &str = "Hello, World!";

/// What `Content-Type` says of every answer.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// What `/big` is cut from; asking for more is answered with all of it.
pub static BIG: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// As many connections as may wait to be accepted; the kernel's own limit is often 4,096.
const BACKLOG: i32 = 4096;

/// What a peer is told on its command line.
#[derive(Debug, Clone, Copy)]
pub struct Args {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How many threads serve.
    pub threads: usize,
    /// Where `cert.pem` and `key.pem` are, to speak TLS with.
    pub tls: Option<&'static Path>,
}

impl Args {
    /// Reads `--listen ADDR [--threads N] [--tls DIRECTORY]`, or exits with 2 and a usage line.
    pub fn parse() -> Self {
        Self::from(std::env::args().skip(1)).unwrap_or_else(|| {
            eprintln!("usage: --listen ADDR [--threads N] [--tls DIRECTORY]");
            process::exit(2)
        })
    }

    fn from(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (mut listen, mut threads, mut tls) = (None, 1, None);
        while let Some(flag) = words.next() {
            let value = words.next()?;
            match flag.as_str() {
                "--listen" => listen = Some(value.parse().ok()?),
                "--threads" => threads = value.parse().ok().filter(|&threads| threads > 0)?,
                // Kept for as long as the process lives.
                "--tls" => tls = Some(&*PathBuf::from(value).leak()),
                _ => return None,
            }
        }
        Some(Self {
            listen: listen?,
            threads,
            tls,
        })
    }

    /// A listening socket; several can be had when there are several threads.
    pub fn listener(&self) -> std::io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(self.listen),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if self.threads > 1 {
            socket.set_reuse_port(true)?;
        }
        // What is accepted inherits it: without, servers that answer in two writes wait for the client's delayed ACK.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&self.listen.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }
}

/// The number after `name=` in a query string.
pub fn number(query: Option<&str>, name: &str) -> Option<usize> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// What `/big` answers to `?bytes=N`.
pub fn big(bytes: Option<usize>) -> &'static [u8] {
    &BIG[..bytes.unwrap_or(BIG.len()).min(BIG.len())]
}
