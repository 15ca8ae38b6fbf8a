//! Client sockets on loopback, from many source addresses.
//!
//! All of 127/8 is loopback on Linux: taking source addresses in turn keeps 28,000 ports per address from running out
//! while closed connections are still in TIME_WAIT.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
};

use socket2::{Domain, Protocol, Socket, Type};

/// How many source addresses are taken in turn.
const SOURCES: usize = 200;

/// Gives each connection the next source address.
#[derive(Debug, Default)]
pub struct Sources {
    next: usize,
}

impl Sources {
    /// A socket that is bound to the next source.
    fn socket(&mut self, target: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if target.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            let last = u8::try_from(2 + self.next % SOURCES).expect("below 256");
            self.next += 1;
            socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
        }
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    }

    /// Connects and waits for it.
    pub fn connect(&mut self, target: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(target)?;
        socket.connect(&target.into())?;
        Ok(socket.into())
    }

    /// Begins to connect; writable means done.
    pub fn begin(&mut self, target: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(target)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&target.into()) {
            Err(error)
                if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                Err(error)
            }
            _ => Ok(socket.into()),
        }
    }
}
