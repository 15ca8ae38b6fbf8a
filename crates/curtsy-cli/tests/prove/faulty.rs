//! Servers with one fault each.

use socket2::SockRef;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// Answers each request by a reset.
pub(crate) async fn resetting() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                read_head(&mut stream).await;
                let linger = Some(Duration::ZERO);
                SockRef::from(&stream).set_linger(linger).unwrap();
            });
        }
    });
    address
}

/// Reads requests and answers none; tells how many it has read.
pub(crate) async fn mute() -> (SocketAddr, watch::Receiver<usize>) {
    let (listener, address) = listen().await;
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            open.push(stream);
            count.send_replace(open.len());
        }
    });
    (address, counted)
}

/// Takes so many connections, then listens no more, then answers one request on each and closes it.
pub(crate) async fn leaving(connections: usize) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(listener.accept().await.unwrap().0);
        }
        drop(listener);
        for mut stream in open {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    address
}

/// Accepts nobody, and its queue is full of the streams that are given with it.
pub(crate) async fn full() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    // The kernel lets in one or two more than it was told.
    while let Ok(Ok(stream)) =
        timeout(Duration::from_millis(500), TcpStream::connect(address)).await
    {
        queued.push(stream);
    }
    (address, listener, queued)
}
