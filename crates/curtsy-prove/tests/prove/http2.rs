//! HTTP/2: the same account, and what GOAWAY adds to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use curtsy_prove::{Loss, Plan, Report};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::servers::{Server, reset};

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// One connection, one client on it.
fn plan(server: &Server, requests: u64) -> Plan {
    Plan::to_address(server.address, "/x?y")
        .connections(1)
        .http2(1)
        .requests_each(requests)
        .timeout(Duration::from_secs(10))
        .expect_text("hello")
}

async fn run(plan: Plan) -> Report {
    let report = plan.start().finish().await;
    let c = &report.counts;
    assert_eq!(c.sent, c.answered + c.lost.total(), "{report}");
    let closed = c.closed_by_server_announced + c.closed_while_idle;
    assert_eq!(
        c.opened,
        closed + c.closed_by_loss + c.closed_by_client,
        "{report}"
    );
    report
}

fn assert_second_lost(report: &Report, cause: Loss) {
    assert_eq!(
        (report.counts.sent, report.counts.answered),
        (2, 1),
        "{report}"
    );
    assert_eq!(report.counts.lost.of(cause), 1, "{report}");
    assert_eq!(report.losses[0].number, 2);
}

async fn accept(stream: TcpStream) -> Connection<TcpStream, Bytes> {
    h2::server::handshake(stream).await.expect("a preface")
}

/// The next request; `None` when the client is gone.
async fn next(connection: &mut Connection<TcpStream, Bytes>) -> Option<Asked> {
    connection.accept().await?.ok()
}

fn answer(respond: &mut SendResponse<Bytes>, status: u16, body: &'static str) {
    let head = Response::builder().status(status).body(()).expect("a head");
    let mut stream = respond.send_response(head, false).expect("an open stream");
    stream
        .send_data(Bytes::from_static(body.as_bytes()), true)
        .expect("an open stream");
}

async fn serve_hello(_: usize, stream: TcpStream) {
    let mut connection = accept(stream).await;
    while let Some((_, mut respond)) = next(&mut connection).await {
        answer(&mut respond, 200, "hello");
    }
}

/// Lets everything that is queued go out, while the client is silent or gone.
async fn flush(connection: &mut Connection<TcpStream, Bytes>) {
    assert!(connection.accept().await.is_none());
}

#[tokio::test]
async fn a_correct_server_loses_nothing() {
    let server = Server::start(serve_hello).await;
    let plan = plan(&server, 20).connections(4).http2(5);
    let report = run(plan.think([0, 1].map(Duration::from_millis))).await;
    assert!(report.is_clean(), "{report}");
    let c = report.counts;
    assert_eq!(
        (c.answered, c.opened, c.closed_by_client),
        (400, 4, 4),
        "{report}"
    );
}

#[tokio::test]
async fn a_connection_for_each_request() {
    let server = Server::start(serve_hello).await;
    let plan = plan(&server, 5).http2(2).connection_per_request();
    let report = run(plan).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.counts.answered, report.counts.opened), (10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_in_two_steps_loses_nothing() {
    let server = Server::start(|number, stream| async move {
        let mut connection = accept(stream).await;
        let mut left = 1 + number % 7;
        while let Some((_, mut respond)) = next(&mut connection).await {
            answer(&mut respond, 200, "hello");
            left = left.saturating_sub(1);
            if left == 0 {
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let plan = plan(&server, 100).connections(10).http2(4);
    let report = run(plan.think([0, 1].map(Duration::from_millis))).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.counts.answered, 4000);
    assert!(report.counts.closed_by_server_announced >= 100, "{report}");
    assert_eq!(report.counts.closed_while_idle, 0, "{report}");
}

/// Reads frames until a HEADERS frame has come, and gives its stream.
async fn read_until_headers(stream: &mut TcpStream) -> u32 {
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.expect("a frame");
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.expect("a payload");
        if header[3] == 1 {
            return u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        }
    }
}

#[tokio::test]
async fn a_request_that_goaway_leaves_out_is_unprocessed() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let server = Server::start(move |number, mut stream| {
        count.store(number + 1, Ordering::Relaxed);
        async move {
            if number > 0 {
                return serve_hello(number, stream).await;
            }
            stream
                .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
                .await
                .expect("SETTINGS");
            stream.read_exact(&mut [0; 24]).await.expect("the preface");
            assert_eq!(read_until_headers(&mut stream).await, 1);
            // GOAWAY, NO_ERROR, last stream 0: the request was not looked at.
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            stream.write_all(&goaway).await.expect("GOAWAY");
            let mut rest = Vec::new();
            // The client may well reset what it has no more use for.
            let _ = stream.read_to_end(&mut rest).await;
        }
    })
    .await;
    let report = run(plan(&server, 2)).await;
    let c = report.counts;
    assert_eq!(
        (c.answered, c.lost.unprocessed, c.lost.total()),
        (1, 1, 1),
        "{report}"
    );
    assert_eq!((c.opened, c.closed_by_server_announced), (2, 1), "{report}");
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_refused_stream_is_unprocessed_and_a_reset_one_is_reset() {
    for (reason, cause) in [
        (Reason::REFUSED_STREAM, Loss::Unprocessed),
        (Reason::INTERNAL_ERROR, Loss::Reset),
    ] {
        let server = Server::start(move |_, stream| async move {
            let mut connection = accept(stream).await;
            let (_, mut respond) = next(&mut connection).await.expect("a request");
            answer(&mut respond, 200, "hello");
            let (_, mut respond) = next(&mut connection).await.expect("a request");
            respond.send_reset(reason);
            flush(&mut connection).await;
        })
        .await;
        let report = run(plan(&server, 2)).await;
        assert_second_lost(&report, cause);
        // The connection itself lives on.
        assert_eq!(
            (report.counts.opened, report.counts.closed_by_client),
            (1, 1)
        );
    }
}

#[tokio::test]
async fn a_close_with_a_request_under_way_is_lost_by_its_place() {
    for (is_begun, cause) in [(false, Loss::EofBefore), (true, Loss::EofInside)] {
        let server = Server::start(move |_, stream| async move {
            let mut connection = accept(stream).await;
            let (_, mut respond) = next(&mut connection).await.expect("a request");
            answer(&mut respond, 200, "hello");
            let (_, mut respond) = next(&mut connection).await.expect("a request");
            let head = Response::builder()
                .header("content-length", 5)
                .body(())
                .expect("a head");
            if is_begun {
                let mut stream = respond.send_response(head, false).expect("open");
                stream
                    .send_data(Bytes::from_static(b"he"), false)
                    .expect("open");
                // Dropping it would reset the stream.
                std::mem::forget(stream);
            }
            std::mem::forget(respond);
            // Time for what is queued to go out; the client has nothing more to say.
            let linger = Duration::from_millis(100);
            let silent = tokio::time::timeout(linger, connection.accept()).await;
            assert!(silent.is_err());
        })
        .await;
        let report = run(plan(&server, 2)).await;
        assert_second_lost(&report, cause);
        assert_eq!(report.counts.closed_by_loss, 1, "{report}");
    }
}

#[tokio::test]
async fn a_reset_connection_is_a_reset() {
    let server = Server::start(|_, mut stream| async move {
        stream.read_exact(&mut [0; 24]).await.expect("the preface");
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .expect("SETTINGS");
        read_until_headers(&mut stream).await;
        reset(stream);
    })
    .await;
    let report = run(plan(&server, 1)).await;
    assert_eq!(report.counts.lost.reset, 1, "{report}");
    assert_eq!(report.counts.closed_by_loss, 1, "{report}");
}

#[tokio::test]
async fn a_close_between_requests_is_no_loss() {
    let server = Server::start(|_, stream| async move {
        let mut connection = accept(stream).await;
        let (_, mut respond) = next(&mut connection).await.expect("a request");
        answer(&mut respond, 200, "hello");
        // Enough for the answer to go out; then the connection is dropped without a word.
        let linger = Duration::from_millis(50);
        let silent = tokio::time::timeout(linger, connection.accept()).await;
        assert!(silent.is_err());
    })
    .await;
    let report = run(plan(&server, 2).think([Duration::from_millis(500)])).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        (report.counts.closed_while_idle, report.counts.opened),
        (1, 2),
        "{report}"
    );
}

#[tokio::test]
async fn statuses_bodies_and_silence_are_judged_as_ever() {
    let server = Server::start(|_, stream| async move {
        let mut connection = accept(stream).await;
        let mut silent = Vec::new();
        for (status, body) in [(200, "hello"), (500, "hello"), (200, "jello")] {
            let (_, mut respond) = next(&mut connection).await.expect("a request");
            answer(&mut respond, status, body);
        }
        while let Some(asked) = next(&mut connection).await {
            silent.push(asked);
        }
    })
    .await;
    let report = run(plan(&server, 4).timeout(Duration::from_millis(500))).await;
    let lost = report.counts.lost;
    assert_eq!(
        (report.counts.answered, report.counts.opened),
        (1, 1),
        "{report}"
    );
    assert_eq!(
        (lost.wrong_status, lost.wrong_body, lost.timeout),
        (1, 1, 1),
        "{report}"
    );
}

#[tokio::test]
async fn uploads_and_downloads_pass_the_windows() {
    const BYTES: usize = 5_000_000;
    let server = Server::start(|_, stream| async move {
        let mut connection = accept(stream).await;
        while let Some((request, mut respond)) = next(&mut connection).await {
            tokio::spawn(async move {
                let mut body = request.into_body();
                let mut received = 0;
                while let Some(piece) = body.data().await {
                    let length = piece.expect("a piece").len();
                    received += length;
                    body.flow_control()
                        .release_capacity(length)
                        .expect("capacity");
                }
                let mut stream = respond
                    .send_response(Response::new(()), false)
                    .expect("open");
                stream
                    .send_data(Bytes::from(vec![b'y'; received]), true)
                    .expect("open");
            });
        }
    })
    .await;
    let plan = Plan::to_address(server.address, "/")
        .connections(2)
        .http2(2)
        .requests_each(2);
    let report = run(plan.upload(BYTES as u64).expect_length(BYTES as u64)).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.counts.body_bytes, 8 * BYTES as u64);
}

#[tokio::test]
async fn a_server_of_another_protocol_is_told() {
    let server = Server::start(crate::servers::serve_hello).await;
    let report = run(plan(&server, 1)).await;
    assert_eq!(report.counts.answered, 0);
    assert_eq!(report.lost(), 1, "{report}");
}

#[tokio::test]
async fn a_closed_listener_ends_the_clients() {
    let address = curtsy_prove::child::free_address().unwrap();
    let report = run(Plan::to_address(address, "/").connections(2).http2(3)).await;
    assert_eq!((report.counts.refused, report.lost()), (6, 0), "{report}");
}
