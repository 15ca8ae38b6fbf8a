//! An echo server that restarts itself without losing a connection.
//!
//! ```sh
//! cargo run -p curtsy-handover --example tcp_echo -- 127.0.0.1:7000
//! kill -HUP <pid>     # start the next generation; replace the binary first, and this is an upgrade
//! kill -TERM <pid>    # stop
//! ```
//! A message is 8 bytes; the answer is those, and the generation that answered as 4 more (big-endian). Between two
//! messages a connection is idle, and goes over with what has been read of the next one.
//!
//! For the tests, `ECHO_DIE=step` with `ECHO_DIE_FLAG=file` kills, at that step, whichever process removes the file first.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use curtsy_handover::wire::Kind;
use curtsy_handover::{
    Arrival, Arrivals, Connection, Gift, Lane, Record, Settled, Start, Successor, Upgrader, inherit,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let start = Start::capture();
    let upgrader = Upgrader::new(start.clone())
        .ready_timeout(env_duration("ECHO_READY_MS", 20_000))
        .answer_timeout(env_duration("ECHO_ANSWER_MS", 5000));
    let generation = start.generation();
    if generation > 0 {
        die_at("heir-start");
    }
    let mut server = match inherit(&start).await? {
        Some(mut inheritance) => {
            die_at("heir-inherited");
            if is_time_to("heir-hang") {
                std::future::pending::<()>().await;
            }
            if is_time_to("heir-fails") {
                return Err("the configuration is broken".into());
            }
            let listener = inheritance
                .take_listener("echo")
                .ok_or("no listener named echo")?;
            let socket = listener
                .sockets
                .into_iter()
                .next()
                .ok_or("a listener without a socket")?;
            let listener = TcpListener::from_std(socket.into())?;
            let upgrader = upgrader.ancestors(inheritance.ancestors());
            let arrivals = inheritance
                .ready(Some(env_duration("ECHO_BAKE_MS", 50)))
                .await?;
            die_at("heir-ready");
            Server::new(generation, listener, upgrader, Some(arrivals))
        }
        None => {
            let address = std::env::args()
                .nth(1)
                .unwrap_or_else(|| "127.0.0.1:7000".into());
            Server::new(
                generation,
                TcpListener::bind(address).await?,
                upgrader,
                None,
            )
        }
    };
    server.run().await?;
    say(generation, "stopped");
    Ok(())
}

struct Server {
    generation: u32,
    listener: Option<TcpListener>,
    accepting: bool,
    upgrader: Upgrader,
    arrivals: Option<Arrivals>,
    /// True while connections are to be given away at their next idle moment.
    leaving: watch::Sender<bool>,
    /// Each ends with the connection, if it is to be given away.
    connections: JoinSet<Option<Connection>>,
    heir: Option<(Successor, Lane)>,
    moved: (usize, Instant),
    baked: bool,
}

impl Server {
    fn new(
        generation: u32,
        listener: TcpListener,
        upgrader: Upgrader,
        arrivals: Option<Arrivals>,
    ) -> Self {
        Self {
            generation,
            listener: Some(listener),
            accepting: true,
            upgrader,
            arrivals,
            leaving: watch::Sender::new(false),
            connections: JoinSet::new(),
            heir: None,
            moved: (0, Instant::now()),
            baked: false,
        }
    }

    async fn run(&mut self) -> Result<(), Box<dyn Error>> {
        let mut restart = signal(SignalKind::hangup())?;
        let mut stop = signal(SignalKind::terminate())?;
        let mut restarts = JoinSet::new();
        let address = self.listener.as_ref().ok_or("no listener")?.local_addr()?;
        say(
            self.generation,
            &format!("serving pid={} address={address}", std::process::id()),
        );
        loop {
            let (successor, lane) = match &mut self.heir {
                Some((successor, lane)) => (Some(&*successor), Some(lane)),
                None => (None, None),
            };
            tokio::select! {
                accepted = accept(self.listener.as_ref()), if self.accepting => {
                    let (stream, _) = accepted?;
                    self.serve(stream, 0, vec![]);
                }
                arrival = next(self.arrivals.as_mut()), if self.arrivals.is_some() => match arrival {
                    Some(Arrival::Connection(connection)) => {
                        die_at("heir-first");
                        self.adopt(connection)?;
                    }
                    Some(Arrival::Restart) => self.restart(&mut restarts)?,
                    Some(Arrival::DonorGone(report)) => {
                        say(self.generation, &format!("donor gone: {report:?}"));
                    }
                    None => self.arrivals = None,
                },
                Some(connection) = self.connections.join_next(), if !self.connections.is_empty() => {
                    if let Some(connection) = connection? {
                        match &mut self.heir {
                            Some((_, lane)) => {
                                lane.offer(connection);
                                die_at("donor-offered");
                            }
                            None => self.adopt(connection)?,
                        }
                    }
                }
                Some((_, settled)) = settled(lane) => match settled {
                    Settled::Taken => self.moved.0 += 1,
                    Settled::Returned(connection, _) => {
                        self.leaving.send_replace(false);
                        self.adopt(connection)?;
                    }
                    Settled::Forgotten => {}
                },
                _ = restart.recv() => self.restart(&mut restarts)?,
                Some(upgraded) = restarts.join_next(), if !restarts.is_empty() => match upgraded? {
                    Ok(successor) => self.hand_over(successor),
                    Err(error) => say(self.generation, &format!("restart failed: {error}").replace('\n', " / ")),
                },
                baked = baked(successor), if !self.baked => self.on_baked(baked).await,
                // What could not be handed over is served here to its end.
                () = over(successor), if self.baked => self.forget_heir().await,
                _ = stop.recv() => return Ok(()),
            }
            // Not before our own donor is gone: what it still offers comes through here to our heir.
            if self.baked && self.connections.is_empty() && self.arrivals.is_none() {
                return self.leave().await;
            }
        }
    }

    async fn leave(&mut self) -> Result<(), Box<dyn Error>> {
        let Some((successor, lane)) = &mut self.heir else {
            return Ok(());
        };
        while let Some((_, settled)) = lane.settled().await {
            match settled {
                Settled::Taken => self.moved.0 += 1,
                Settled::Returned(..) | Settled::Forgotten => {}
            }
        }
        let (moved, since) = self.moved;
        say(
            self.generation,
            &format!("moved={moved} ms={}", since.elapsed().as_millis()),
        );
        // An heir that is gone by now needs no BYE.
        let _ = successor.finish(format!("{moved} connections")).await;
        Ok(())
    }

    fn restart(
        &self,
        restarts: &mut JoinSet<Result<Successor, curtsy_handover::Error>>,
    ) -> io::Result<()> {
        let mut gift = Gift::new();
        if let Some(listener) = &self.listener {
            use std::os::fd::AsFd;
            gift.listener("echo", Kind::Tcp, "plain", [listener.as_fd()])?;
        }
        let upgrader = self.upgrader.clone();
        restarts.spawn(async move { upgrader.upgrade(gift).await });
        Ok(())
    }

    /// The heir accepts.
    fn hand_over(&mut self, successor: Successor) {
        die_at("donor-ready");
        self.accepting = false;
        self.moved = (0, Instant::now());
        let lane = successor.lane();
        self.heir = Some((successor, lane));
        self.leaving.send_replace(true);
    }

    async fn on_baked(&mut self, baked: Result<(), curtsy_handover::Error>) {
        match baked {
            Ok(()) => {
                die_at("donor-baked");
                self.baked = true;
                self.listener = None;
            }
            Err(error) => {
                say(
                    self.generation,
                    &format!("restart failed: {error}").replace('\n', " / "),
                );
                self.accepting = true;
                self.forget_heir().await;
            }
        }
    }

    /// Every connection that was offered is answered for, and what comes back is served.
    async fn forget_heir(&mut self) {
        self.leaving.send_replace(false);
        let Some((_, mut lane)) = self.heir.take() else {
            return;
        };
        while let Some((_, settled)) = lane.settled().await {
            if let Settled::Returned(connection, _) = settled {
                // A socket that cannot be watched cannot be served; it closes.
                let _ = self.adopt(connection);
            }
        }
    }

    fn adopt(&mut self, connection: Connection) -> io::Result<()> {
        let stream = TcpStream::from_std(connection.fd.into())?;
        self.serve(stream, connection.record.served, connection.record.unread);
        Ok(())
    }

    fn serve(&mut self, stream: TcpStream, served: u64, unread: Vec<u8>) {
        let (generation, leaving) = (self.generation, self.leaving.subscribe());
        self.connections.spawn(async move {
            // An error is the client's end of it.
            echo(stream, served, unread, generation, leaving)
                .await
                .unwrap_or(None)
        });
    }
}

/// Answers until the client goes, or until this process wants to give the connection away and it is idle.
async fn echo(
    mut stream: TcpStream,
    mut served: u64,
    mut unread: Vec<u8>,
    generation: u32,
    mut leaving: watch::Receiver<bool>,
) -> io::Result<Option<Connection>> {
    loop {
        while let Some((message, rest)) = unread.split_first_chunk::<8>() {
            let mut answer = message.to_vec();
            answer.extend_from_slice(&generation.to_be_bytes());
            unread = rest.to_vec();
            stream.write_all(&answer).await?;
            served += 1;
        }
        tokio::select! {
            read = stream.read_buf(&mut unread) => if read? == 0 { return Ok(None) },
            leaving = leaving.wait_for(|leaving| *leaving) => {
                if leaving.is_err() {
                    return Ok(None);
                }
                drop(leaving);
                let record = Record { listener: "echo".into(), served, unread, ..Record::default() };
                return Ok(Some(Connection { fd: stream.into_std()?.into(), record }));
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, std::net::SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn next(arrivals: Option<&mut Arrivals>) -> Option<Arrival> {
    arrivals?.next().await
}

async fn settled(lane: Option<&mut Lane>) -> Option<(u64, Settled)> {
    lane?.settled().await
}

async fn baked(successor: Option<&Successor>) -> Result<(), curtsy_handover::Error> {
    match successor {
        Some(successor) => successor.baked().await,
        None => std::future::pending().await,
    }
}

async fn over(successor: Option<&Successor>) {
    match successor {
        Some(successor) => successor.over().await,
        None => std::future::pending().await,
    }
}

#[allow(clippy::print_stdout, reason = "a program's output")]
fn say(generation: u32, what: &str) {
    println!("generation={generation} {what}");
}

fn env_duration(name: &str, default: u64) -> Duration {
    Duration::from_millis(
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
            .unwrap_or(default),
    )
}

fn is_time_to(step: &str) -> bool {
    let named = std::env::var("ECHO_DIE").is_ok_and(|named| named == step);
    let flag = std::env::var("ECHO_DIE_FLAG").unwrap_or_default();
    named && std::fs::remove_file(flag).is_ok()
}

fn die_at(step: &str) {
    if is_time_to(step) {
        let own = rustix::process::getpid();
        // As sudden as it gets: no destructor, no buffer is written.
        rustix::process::kill_process(own, rustix::process::Signal::KILL)
            .unwrap_or_else(|_| std::process::abort());
    }
}
