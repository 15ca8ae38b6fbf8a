//! hyper's HTTP/1 connection and nothing around it: one current-thread runtime per thread, each with its own
//! `SO_REUSEPORT` socket. What is left of a server when only its engine is kept; it has no orderly stop.
//!
//! Every thread is spawned, a single one too, as in the other servers of threads: in a process of one thread the kernel
//! and the C library spare work at each system call, and the difference would be taken for one of servers.

use std::{net::TcpListener, thread};

use hyper::{server::conn::http1, service::service_fn};
use hyper_tpc::answer;
use hyper_util::rt::TokioIo;
use peer::Args;

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let threads: Vec<_> = (0..args.threads)
        .map(|_| {
            args.listener()
                .map(|listener| thread::spawn(move || serve(listener)))
        })
        .collect::<Result<_, _>>()?;
    threads
        .into_iter()
        .try_for_each(|thread| thread.join().expect("a worker panicked"))
}

fn serve(listener: TcpListener) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            stream.set_nodelay(true)?;
            let mut http = http1::Builder::new();
            let connection = http
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(async move {
                // A client that goes away in the middle is none of the server's business.
                let _ = connection.await;
            });
        }
    })
}
