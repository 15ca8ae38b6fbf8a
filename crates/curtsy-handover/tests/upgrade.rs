//! Whole handovers through the public interface, with an operating system whose processes are tasks of this one.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use curtsy_handover::env::{Boxed, Env, Launch, Process};
use curtsy_handover::wire::{Frame, Hello, Kind, Message, Refusal};
use curtsy_handover::{
    Arrival, Connection, Gift, Record, Returned, Settled, Start, Summons, Upgrader, heir,
    inherit_over,
};
use curtsy_sys::pidfd::Exit;
use curtsy_sys::{scm, seqpacket};
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(10);

/// What an heir does with its end of the channel.
type Behaviour = Arc<dyn Fn(OwnedFd, Summons) -> Boxed<'static, Exit> + Send + Sync>;

struct Fake {
    behaviour: Behaviour,
    launched: AtomicUsize,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

#[derive(Debug)]
struct FakeProcess {
    exit: watch::Receiver<Option<Exit>>,
    killer: watch::Sender<bool>,
}

impl Env for Fake {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn launch(&self, launch: Launch<'_>) -> io::Result<Box<dyn Process>> {
        self.launched.fetch_add(1, Ordering::SeqCst);
        if launch.program.ends_with("missing") {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (channel, _) = launch.fds.iter().find(|(_, number)| *number == 3).unwrap();
        let channel = seqpacket::duplicate(channel)?;
        let start = Start::from_parts(vec![], launch.vars, None, Some(std::process::id()));
        let heir = (self.behaviour)(channel, start.summons.unwrap());
        let (killer, mut killed) = watch::channel(false);
        let (report, exit) = watch::channel(None);
        tokio::spawn(async move {
            let exit = tokio::select! {
                exit = heir => exit,
                _ = killed.wait_for(|killed| *killed) => Exit::Signal(9),
            };
            report.send_replace(Some(exit));
            // Reported only when the task's end of the channel is closed, as a process's would be.
        });
        Ok(Box::new(FakeProcess { exit, killer }))
    }
}

impl Process for FakeProcess {
    fn pid(&self) -> u32 {
        4_000_000
    }

    fn kill(&self) -> io::Result<()> {
        self.killer.send_replace(true);
        Ok(())
    }

    fn exited(&mut self) -> Boxed<'_, Exit> {
        Box::pin(async {
            let exit = self.exit.wait_for(Option::is_some).await.unwrap();
            exit.unwrap()
        })
    }

    fn last_words(&mut self) -> Boxed<'_, String> {
        Box::pin(async { "its last words".to_owned() })
    }
}

fn upgrader(behaviour: Behaviour) -> (Upgrader, Arc<Fake>) {
    let fake = Arc::new(Fake {
        behaviour,
        launched: AtomicUsize::new(0),
    });
    let start = Start::from_parts(
        vec!["server".into()],
        vec![],
        Some("/opt/server".into()),
        None,
    );
    let env: Arc<dyn Env> = fake.clone();
    (Upgrader::new(start).env(env).capture_stderr(false), fake)
}

fn behaviour<F>(of: impl Fn(OwnedFd, Summons) -> F + Send + Sync + 'static) -> Behaviour
where
    F: Future<Output = Exit> + Send + 'static,
{
    Arc::new(move |channel, summons| Box::pin(of(channel, summons)))
}

/// An heir that takes everything, bakes when told, and passes on what arrives.
fn good(arrived: mpsc::UnboundedSender<Arrival>, bake: watch::Receiver<bool>) -> Behaviour {
    behaviour(move |channel, summons| {
        let (arrived, mut bake) = (arrived.clone(), bake.clone());
        async move {
            let mut inheritance = inherit_over(channel, None, summons, heir::Limits::default())
                .await
                .unwrap();
            assert_eq!(inheritance.tickets(), Some(&b"keys"[..]));
            let listener = inheritance.take_listener("main").unwrap();
            assert_eq!(
                (
                    listener.kind,
                    listener.mode.as_str(),
                    listener.sockets.len()
                ),
                (Kind::Tcp, "plain", 1)
            );
            let mut arrivals = inheritance.ready(None).await.unwrap();
            let baker = arrivals.baker();
            tokio::spawn(async move {
                if bake.wait_for(|bake| *bake).await.is_ok() {
                    baker.bake();
                }
            });
            while let Some(arrival) = arrivals.next().await {
                let last = matches!(arrival, Arrival::DonorGone(_));
                let _ = arrived.send(arrival);
                if last {
                    break;
                }
            }
            drop(listener);
            Exit::Status(0)
        }
    })
}

/// A raw heir: it says these messages in turn, each after it has heard something, and then waits to be killed.
fn scripted(messages: Vec<Vec<u8>>) -> Behaviour {
    behaviour(move |channel, _| {
        let messages = messages.clone();
        async move {
            let channel = curtsy_handover::channel::Channel::new(channel).unwrap();
            let mut buffer = curtsy_handover::channel::Buffer::default();
            for message in messages {
                let _ = channel.recv(&mut buffer).await;
                let _ = channel.try_send(&message, &[]);
            }
            std::future::pending().await
        }
    })
}

fn frame(sequence: u32, message: Message) -> Vec<u8> {
    Frame {
        generation: 1,
        sequence,
        message,
    }
    .encode()
    .unwrap()
}

fn hello() -> Vec<u8> {
    frame(
        1,
        Message::Hello(Hello {
            room: 100,
            window: 10,
            ..Hello::default()
        }),
    )
}

fn gift(listener: &TcpListener) -> Gift {
    let mut gift = Gift::new();
    gift.listener("main", Kind::Tcp, "plain", [listener.as_fd()])
        .unwrap()
        .tickets(b"keys".to_vec());
    gift
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn connection(served: u64) -> (Connection, UnixStream) {
    let (ours, client) = UnixStream::pair().unwrap();
    let record = Record {
        listener: "main".into(),
        served,
        unread: b"GE".to_vec(),
        ..Record::default()
    };
    (
        Connection {
            fd: ours.into(),
            record,
        },
        client,
    )
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("this takes too long")
}

#[tokio::test]
async fn everything_goes_over_and_the_donor_leaves() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (bake, baking) = watch::channel(false);
    let (upgrader, _) = upgrader(good(arrived, baking));
    let socket = listener();
    let successor = in_time(upgrader.upgrade(gift(&socket))).await.unwrap();
    assert_eq!((successor.generation(), successor.pid()), (1, 4_000_000));

    const CONNECTIONS: u64 = 2000;
    let mut lane = successor.lane();
    let mut clients = vec![];
    for served in 0..CONNECTIONS {
        let (connection, client) = connection(served);
        lane.offer(connection);
        clients.push(client);
    }
    for _ in 0..CONNECTIONS {
        let (_, settled) = in_time(lane.settled()).await.unwrap();
        assert!(matches!(settled, Settled::Taken), "{settled:?}");
    }
    assert!(lane.settled().await.is_none());
    // In order, with what belongs to them, and alive.
    for (served, client) in (0..CONNECTIONS).zip(&mut clients) {
        let Some(Arrival::Connection(connection)) = arrivals.recv().await else {
            panic!("no connection")
        };
        assert_eq!(
            (connection.record.served, &connection.record.unread[..]),
            (served, &b"GE"[..])
        );
        UnixStream::from(connection.fd)
            .write_all(&served.to_be_bytes())
            .unwrap();
        let mut answer = [0; 8];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(u64::from_be_bytes(answer), served);
    }
    // BYE waits for BAKED.
    let finish = successor.finish("2000 handed over");
    tokio::pin!(finish);
    assert!(futures_pending(&mut finish).await);
    bake.send_replace(true);
    in_time(successor.baked()).await.unwrap();
    in_time(finish).await.unwrap();
    let Some(Arrival::DonorGone(Some(report))) = in_time(arrivals.recv()).await else {
        panic!("no BYE")
    };
    assert_eq!(report, "2000 handed over");
    // Too late is told at once.
    lane.offer(connection(0).0);
    assert!(matches!(
        lane.settled().await,
        Some((_, Settled::Returned(_, Returned::Over)))
    ));
}

/// Whether it is pending when polled once.
async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
    })
    .await
}

#[tokio::test]
async fn an_heir_that_cannot_start_crashes_or_hangs_changes_nothing() {
    let socket = listener();
    let start = Start::from_parts(vec!["x".into()], vec![], Some("/missing".into()), None);
    let fake = Fake {
        behaviour: scripted(vec![]),
        launched: AtomicUsize::new(0),
    };
    let missing = Upgrader::new(start).env(Arc::new(fake));
    assert!(
        in_time(missing.upgrade(gift(&socket)))
            .await
            .unwrap_err()
            .is_exec()
    );

    let (crashing, _) = upgrader(behaviour(|_, _| async { Exit::Status(7) }));
    let error = in_time(crashing.upgrade(gift(&socket))).await.unwrap_err();
    assert!(error.is_crash(), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the new process ended with exit status 7; its last words were:\nits last words"
    );

    // Hangs before HELLO, after HELLO, and after all GOTs.
    let got = |sequence| frame(sequence, Message::Got { sequence });
    for script in [vec![], vec![hello()], vec![hello(), got(2), got(3)]] {
        let (hanging, _) = upgrader(scripted(script));
        let hanging = hanging.ready_timeout(Duration::from_millis(50));
        let error = in_time(hanging.upgrade(gift(&socket))).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
    }
    // The donor's listener is what it was.
    let _client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    socket.accept().unwrap();
}

#[tokio::test]
async fn an_heir_that_speaks_otherwise_is_ended() {
    let socket = listener();
    let mut other_version = hello();
    other_version[5] = 2;
    let (upgrader_2, _) = upgrader(scripted(vec![other_version]));
    let error = in_time(upgrader_2.upgrade(gift(&socket)))
        .await
        .unwrap_err();
    assert!(error.is_other_version(), "{error}");
    assert!(error.to_string().contains("version 2"), "{error}");

    let taken = frame(2, Message::Taken(vec![1]));
    let stale = Frame {
        generation: 9,
        sequence: 1,
        message: Message::Ready,
    }
    .encode()
    .unwrap();
    for script in [
        vec![b"no frame".to_vec()],
        vec![hello(), taken],
        vec![stale],
    ] {
        let (upgrader, _) = upgrader(scripted(script));
        let error = in_time(upgrader.upgrade(gift(&socket))).await.unwrap_err();
        assert!(error.is_protocol(), "{error}");
    }
    let (refusing, _) = upgrader(scripted(vec![frame(
        1,
        Message::Abort {
            reason: "bad config".into(),
        },
    )]));
    let error = in_time(refusing.upgrade(gift(&socket))).await.unwrap_err();
    assert!(
        error.is_refused() && error.to_string().contains("bad config"),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_hung_heir_has_not_taken_comes_back() {
    let socket = listener();
    let got = |sequence| frame(sequence, Message::Got { sequence });
    // It takes the first connection and nothing more.
    let ready = frame(4, Message::Ready);
    let taken = frame(5, Message::Taken(vec![1]));
    let (hanging, _) = upgrader(scripted(vec![hello(), got(2), got(3), ready, taken]));
    let hanging = hanging.answer_timeout(Duration::from_millis(80));
    let successor = in_time(hanging.upgrade(gift(&socket))).await.unwrap();
    let mut lane = successor.lane();
    let mut clients = vec![];
    for served in 0..20 {
        let (connection, client) = connection(served);
        lane.offer(connection);
        clients.push(client);
    }
    let mut returned = 0;
    for _ in 0..20 {
        match in_time(lane.settled()).await.unwrap() {
            (id, Settled::Taken) => assert_eq!(id, 1),
            (id, Settled::Returned(connection, Returned::HeirGone)) => {
                assert_eq!(connection.record.served, id - 1);
                returned += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(returned, 19);
    let error = in_time(successor.baked()).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    // And the next attempt is not in the way of the last.
    let error = in_time(
        hanging
            .ready_timeout(Duration::from_millis(50))
            .upgrade(Gift::new()),
    )
    .await;
    assert!(error.is_err());
}

#[tokio::test]
async fn an_heir_that_dies_while_it_bakes_gives_everything_back() {
    let socket = listener();
    let (dying, _) = upgrader(behaviour(|channel, summons| async move {
        let inheritance = inherit_over(channel, None, summons, heir::Limits::default())
            .await
            .unwrap();
        let mut arrivals = inheritance.ready(None).await.unwrap();
        arrivals.next().await;
        Exit::Signal(11)
    }));
    let successor = in_time(dying.upgrade(gift(&socket))).await.unwrap();
    let mut lane = successor.lane();
    let (first, _client) = connection(1);
    lane.offer(first);
    // The death of a task does not close what it has spawned: the driver's end closes with its last handle.
    assert!(matches!(
        in_time(lane.settled()).await,
        Some((_, Settled::Taken))
    ));
    let error = in_time(successor.baked()).await.unwrap_err();
    assert!(
        error.is_crash() && error.to_string().contains("signal 11"),
        "{error}"
    );
    lane.offer(connection(2).0);
    assert!(matches!(
        in_time(lane.settled()).await,
        Some((_, Settled::Returned(_, Returned::HeirGone)))
    ));
}

#[tokio::test]
async fn connections_that_nobody_wants_or_that_do_not_fit_come_back() {
    let socket = listener();
    let (deaf, _) = upgrader(behaviour(|channel, summons| async move {
        let inheritance = inherit_over(channel, None, summons, heir::Limits::default())
            .await
            .unwrap();
        drop(inheritance.ready(Some(Duration::ZERO)).await.unwrap());
        std::future::pending().await
    }));
    let successor = in_time(deaf.upgrade(gift(&socket))).await.unwrap();
    let mut lane = successor.lane();
    lane.offer(connection(1).0);
    let (_, settled) = in_time(lane.settled()).await.unwrap();
    assert!(
        matches!(
            settled,
            Settled::Returned(_, Returned::Refused(Refusal::Unwanted))
        ),
        "{settled:?}"
    );
    let (mut large, _client) = connection(1);
    large.record.unread = vec![0; curtsy_handover::UNREAD_MAX + 1];
    lane.offer(large);
    let (_, settled) = in_time(lane.settled()).await.unwrap();
    assert!(
        matches!(settled, Settled::Returned(_, Returned::TooLarge)),
        "{settled:?}"
    );
}

#[tokio::test]
async fn a_second_request_waits_for_the_first() {
    let socket = listener();
    // The first heir hangs, the second is good.
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (bake, baking) = watch::channel(false);
    let heirs = Mutex::new(vec![good(arrived, baking), scripted(vec![])]);
    let (upgrader, fake) = upgrader(Arc::new(move |channel, summons| {
        let next = heirs.lock().unwrap().pop().expect("no third heir");
        next(channel, summons)
    }));
    let upgrader = upgrader.ready_timeout(Duration::from_millis(100));
    let (first, second) = tokio::join!(
        upgrader.upgrade(gift(&socket)),
        upgrader.upgrade(gift(&socket))
    );
    assert!(first.unwrap_err().is_timeout());
    let successor = second.unwrap();
    assert_eq!(fake.launched.load(Ordering::SeqCst), 2);

    // A third is asked for while the second bakes, and goes to it when it has.
    let third = upgrader.upgrade(gift(&socket));
    tokio::pin!(third);
    assert!(futures_pending(&mut third).await);
    bake.send_replace(true);
    let error = in_time(third).await.unwrap_err();
    assert!(error.is_forwarded(), "{error}");
    assert!(matches!(
        in_time(arrivals.recv()).await,
        Some(Arrival::Restart)
    ));
    in_time(successor.finish("")).await.unwrap();
}

#[tokio::test]
async fn a_handover_can_be_called_off() {
    let socket = listener();
    let (arrived, _arrivals) = mpsc::unbounded_channel();
    let (_bake, baking) = watch::channel(false);
    let (upgrader, _) = upgrader(good(arrived, baking));
    let successor = in_time(upgrader.upgrade(gift(&socket))).await.unwrap();
    successor.cancel();
    assert!(in_time(successor.baked()).await.unwrap_err().is_cancelled());
    // By dropping the request as well: the next one gets its turn.
    let (hanging, fake) = self::upgrader(scripted(vec![hello()]));
    let dropped =
        tokio::time::timeout(Duration::from_millis(20), hanging.upgrade(gift(&socket))).await;
    assert!(dropped.is_err());
    let again = hanging.ready_timeout(Duration::from_millis(20));
    assert!(
        in_time(again.upgrade(gift(&socket)))
            .await
            .unwrap_err()
            .is_timeout()
    );
    assert_eq!(fake.launched.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_donor_that_speaks_another_version_is_told() {
    let (ours, theirs) = seqpacket::pair().unwrap();
    let mut bytes = Frame {
        generation: 4,
        sequence: 1,
        message: Message::Complete,
    }
    .encode()
    .unwrap();
    bytes[5] = 3;
    scm::send(&ours, &bytes, &[]).unwrap();
    let summons = Summons {
        channel: 3,
        stderr: None,
        parent: 1,
        generation: 5,
    };
    let error = in_time(inherit_over(theirs, None, summons, heir::Limits::default()))
        .await
        .unwrap_err();
    assert!(error.is_other_version(), "{error}");
    let mut buffer = vec![0; 65536];
    let mut heard = vec![];
    while let Ok(received) = scm::recv(&ours, &mut buffer)
        && received.len > 0
    {
        heard.push(Frame::decode(&buffer[..received.len]).unwrap().message);
    }
    assert!(
        matches!(&heard[..], [Message::Hello(_), Message::Abort { reason }] if reason.contains("version 3"))
    );
}

#[tokio::test]
async fn no_more_is_offered_than_the_heir_has_room_for() {
    let socket = listener();
    let hello = frame(
        1,
        Message::Hello(Hello {
            room: 5,
            window: 100,
            ..Hello::default()
        }),
    );
    let got = |sequence| frame(sequence, Message::Got { sequence });
    let taken = frame(5, Message::Taken((1..=5).collect()));
    let (small, _) = upgrader(scripted(vec![
        hello,
        got(2),
        got(3),
        frame(4, Message::Ready),
        taken,
    ]));
    let successor = in_time(small.upgrade(gift(&socket))).await.unwrap();
    let mut lane = successor.lane();
    let clients: Vec<_> = (0..20).map(connection).collect();
    for (connection, _client) in clients {
        lane.offer(connection);
    }
    let (mut taken, mut no_room) = (0, 0);
    while let Some((_, settled)) = in_time(lane.settled()).await {
        match settled {
            Settled::Taken => taken += 1,
            Settled::Returned(_, Returned::NoRoom) => no_room += 1,
            other @ (Settled::Returned(..) | Settled::Forgotten) => panic!("{other:?}"),
        }
    }
    assert_eq!((taken, no_room), (5, 15));
}

#[tokio::test]
async fn an_heir_that_stops_taking_still_gets_what_it_took() {
    let socket = listener();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (stopping, _) = upgrader(behaviour(move |channel, summons| {
        let arrived = arrived.clone();
        async move {
            let inheritance = inherit_over(channel, None, summons, heir::Limits::default())
                .await
                .unwrap();
            let mut arrivals = inheritance.ready(Some(Duration::ZERO)).await.unwrap();
            let first = arrivals.next().await.unwrap();
            arrivals.stop();
            let _ = arrived.send(first);
            while let Some(arrival) = arrivals.next().await {
                let _ = arrived.send(arrival);
            }
            drop(arrived);
            std::future::pending().await
        }
    }));
    let successor = in_time(stopping.upgrade(gift(&socket))).await.unwrap();
    let mut lane = successor.lane();
    let mut clients = vec![];
    for served in 0..500 {
        let (connection, client) = connection(served);
        lane.offer(connection);
        clients.push(client);
    }
    let (mut taken, mut refused) = (0, 0);
    while let Some((_, settled)) = in_time(lane.settled()).await {
        match settled {
            Settled::Taken => taken += 1,
            Settled::Returned(_, Returned::Refused(Refusal::Unwanted)) => refused += 1,
            other @ (Settled::Returned(..) | Settled::Forgotten) => panic!("{other:?}"),
        }
    }
    assert_eq!(taken + refused, 500);
    for _ in 0..taken {
        assert!(matches!(
            in_time(arrivals.recv()).await,
            Some(Arrival::Connection(_))
        ));
    }
    assert!(arrivals.try_recv().is_err(), "more came out than was taken");
}

#[tokio::test]
async fn an_heir_that_somebody_else_started_is_given_the_same() {
    let socket = listener();
    let (ours, theirs) = seqpacket::pair().unwrap();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (_bake, baking) = watch::channel(true);
    let heir = good(arrived, baking);
    let summons = Summons {
        channel: 3,
        stderr: None,
        parent: 1,
        generation: 1,
    };
    let heir = tokio::spawn(heir(theirs, summons));
    // A process that stands for the heir: it is held, and it is not ours to reap.
    let mut sleeper = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let held = curtsy_sys::pidfd::open(sleeper.id()).unwrap();
    let process = curtsy_handover::env::hold(sleeper.id(), held).unwrap();
    let (upgrader, fake) = upgrader(scripted(vec![]));
    let successor = in_time(upgrader.upgrade_over(ours, process, gift(&socket)))
        .await
        .unwrap();
    in_time(successor.baked()).await.unwrap();
    in_time(successor.finish("bye")).await.unwrap();
    assert!(matches!(
        in_time(arrivals.recv()).await,
        Some(Arrival::DonorGone(Some(_)))
    ));
    assert_eq!(in_time(heir).await.unwrap(), Exit::Status(0));
    assert_eq!(fake.launched.load(Ordering::SeqCst), 0);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[tokio::test]
async fn generations_that_drain_are_capped() {
    let socket = listener();
    let (upgrader, fake) = upgrader(scripted(vec![]));
    let error = in_time(upgrader.generations_max(0).upgrade(gift(&socket)))
        .await
        .unwrap_err();
    assert!(error.is_too_many_generations(), "{error}");
    assert_eq!(fake.launched.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_process_with_a_supervisor_does_not_restart_past_it() {
    let socket = listener();
    let vars = vec![("CURTSY_RUN".into(), "parent=77".into())];
    let start = |parent| {
        let executable = Some("/missing".into());
        Start::from_parts(vec!["x".into()], vars.clone(), executable, Some(parent))
    };
    let upgrader = |parent| {
        let fake = Fake {
            behaviour: scripted(vec![]),
            launched: AtomicUsize::new(0),
        };
        Upgrader::new(start(parent)).env(Arc::new(fake))
    };
    let error = in_time(upgrader(77).upgrade(gift(&socket)))
        .await
        .unwrap_err();
    assert!(error.is_supervised(), "{error}");
    assert!(error.to_string().contains("(pid 77)"), "{error}");
    // A child of the supervised process has the same variable, and nobody above it who would start it again.
    let error = in_time(upgrader(78).upgrade(gift(&socket)))
        .await
        .unwrap_err();
    assert!(error.is_exec(), "{error}");
}
