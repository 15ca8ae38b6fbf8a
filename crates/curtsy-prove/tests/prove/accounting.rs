//! Servers that misbehave on purpose, and the exact account that each must give.

use std::time::Duration;

use curtsy_prove::{Loss, Plan, Report};
use tokio::io::AsyncWriteExt;

use crate::servers::{HELLO, Server, read_head, reset, send, serve_hello};

/// One client, `requests` of them, no pauses, the answer "hello" expected.
fn plan(server: &Server, requests: u64) -> Plan {
    Plan::to_address(server.address, "/")
        .connections(1)
        .requests_each(requests)
        .timeout(Duration::from_secs(10))
        .expect_text("hello")
}

/// Runs a plan, and checks what must hold for every run.
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
    assert_eq!(report.latency.count, c.answered);
    assert_eq!(
        report.timeline.iter().map(|c| c.answered).sum::<u64>(),
        c.answered
    );
    report
}

/// Two requests, of which exactly the second is lost, for this cause.
fn assert_second_lost(report: &Report, cause: Loss) {
    let c = &report.counts;
    assert_eq!((c.sent, c.answered), (2, 1), "{report}");
    assert_eq!(c.lost.of(cause), 1, "{report}");
    assert_eq!(c.lost.total(), 1, "{report}");
    assert_eq!(report.lost(), 1);
    assert!(!report.is_clean());
    assert_eq!(report.losses.len(), 1);
    assert_eq!(report.losses[0].number, 2);
    assert_eq!(report.losses[0].cause, cause);
}

#[tokio::test]
async fn a_correct_server_loses_nothing() {
    let server = Server::start(serve_hello).await;
    let mut plan = plan(&server, 50).connections(20);
    plan = plan.think([0, 1, 2].map(Duration::from_millis));
    let report = run(plan).await;
    assert!(report.is_clean(), "{report}");
    let c = report.counts;
    assert_eq!((c.sent, c.answered, c.body_bytes), (1000, 1000, 5000));
    assert_eq!((c.opened, c.closed_by_client), (20, 20));
    assert_eq!(server.accepted(), 20);
}

#[tokio::test]
async fn a_reset_before_the_answer() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, HELLO).await;
        read_head(&mut stream).await;
        reset(stream);
    })
    .await;
    let report = run(plan(&server, 2)).await;
    assert_second_lost(&report, Loss::Reset);
    assert!(report.losses[0].detail.contains("before"), "{report}");
    assert_eq!(report.counts.closed_by_loss, 1);
}

#[tokio::test]
async fn a_reset_inside_the_answer() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, HELLO).await;
        read_head(&mut stream).await;
        // More than a socket holds: the reset comes when the client has read some of it.
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
        send(&mut stream, head).await;
        send(&mut stream, &"x".repeat(20_000_000)).await;
        reset(stream);
    })
    .await;
    let report = run(plan(&server, 2)).await;
    assert_second_lost(&report, Loss::Reset);
    assert!(report.losses[0].detail.contains("inside"), "{report}");
}

#[tokio::test]
async fn a_close_that_crosses_the_request_unread() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, HELLO).await;
        // The second request lies in the socket, unread, when the socket is closed.
        stream.readable().await.unwrap();
        let mut byte = [0; 1];
        stream.peek(&mut byte).await.unwrap();
    })
    .await;
    assert_second_lost(&run(plan(&server, 2)).await, Loss::Reset);
}

#[tokio::test]
async fn a_close_after_the_request_was_read() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, HELLO).await;
        read_head(&mut stream).await;
    })
    .await;
    assert_second_lost(&run(plan(&server, 2)).await, Loss::EofBefore);
}

#[tokio::test]
async fn a_fin_behind_the_answer_that_the_client_has_no_time_to_see() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, HELLO).await;
        stream.shutdown().await.unwrap();
        // The reading half stays: no reset may take the end of stream's place.
        read_head(&mut stream).await;
        read_head(&mut stream).await;
    })
    .await;
    assert_second_lost(&run(plan(&server, 2)).await, Loss::EofBefore);
}

#[tokio::test]
async fn a_fin_noticed_while_thinking_is_no_loss() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, HELLO).await;
    })
    .await;
    let report = run(plan(&server, 3).think([Duration::from_millis(50)])).await;
    assert!(report.is_clean(), "{report}");
    let c = report.counts;
    assert_eq!((c.sent, c.answered, c.opened), (3, 3, 3));
    assert_eq!(
        (c.closed_while_idle, c.closed_by_client),
        (2, 1),
        "{report}"
    );
}

#[tokio::test]
async fn an_announced_close_is_no_loss() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        send(&mut stream, answer).await;
    })
    .await;
    for pause in [0, 5].map(Duration::from_millis) {
        let report = run(plan(&server, 3).think([pause])).await;
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.counts.closed_by_server_announced, 3);
        assert_eq!(report.counts.opened, 3);
    }
}

#[tokio::test]
async fn wrong_statuses_are_losses_and_keep_their_connection() {
    let server = Server::start(|_, mut stream| async move {
        for status in [200, 500, 503, 404, 200] {
            read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\nhello");
            send(&mut stream, &answer).await;
        }
        read_head(&mut stream).await;
    })
    .await;
    let report = run(plan(&server, 5)).await;
    assert_eq!(
        (report.counts.answered, report.counts.lost.wrong_status),
        (2, 3),
        "{report}"
    );
    assert_eq!(report.counts.opened, 1);
    let told: Vec<_> = report
        .losses
        .iter()
        .map(|l| (l.number, l.detail.as_str()))
        .collect();
    assert_eq!(
        told,
        [(2, "status 500"), (3, "status 503"), (4, "status 404")]
    );

    let server = Server::start(|_, mut stream| async move {
        while read_head(&mut stream).await {
            send(
                &mut stream,
                "HTTP/1.1 404 X\r\nContent-Length: 5\r\n\r\nhello",
            )
            .await;
        }
    })
    .await;
    assert!(run(plan(&server, 3).expect_status(404)).await.is_clean());
}

#[tokio::test]
async fn wrong_bodies_are_losses() {
    let server = Server::start(|_, mut stream| async move {
        for body in ["hello", "jello", "hello!"] {
            read_head(&mut stream).await;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            send(&mut stream, &answer).await;
        }
        read_head(&mut stream).await;
    })
    .await;
    let report = run(plan(&server, 3)).await;
    assert_eq!(report.counts.lost.wrong_body, 2, "{report}");
    assert_eq!(report.losses[0].detail, "the body is \"jello\"");
    assert_eq!(report.losses[1].detail, "6 bytes instead of 5");
}

#[tokio::test]
async fn the_answer_to_another_request_is_a_loss() {
    let server = Server::start(|_, mut stream| async move {
        for number in [1, 7] {
            read_head(&mut stream).await;
            let field = format!("Prove-Request: {number}");
            send(
                &mut stream,
                &HELLO.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n")),
            )
            .await;
        }
        read_head(&mut stream).await;
    })
    .await;
    assert_second_lost(&run(plan(&server, 2)).await, Loss::WrongBody);
}

#[tokio::test]
async fn truncated_bodies_are_told_from_missing_answers() {
    for part in [
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    ] {
        let server = Server::start(move |_, mut stream| async move {
            read_head(&mut stream).await;
            send(&mut stream, HELLO).await;
            read_head(&mut stream).await;
            send(&mut stream, part).await;
        })
        .await;
        assert_second_lost(&run(plan(&server, 2)).await, Loss::EofInside);
    }
}

#[tokio::test]
async fn garbage_is_named() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, HELLO).await;
        read_head(&mut stream).await;
        send(&mut stream, "not HTTP at all\r\n\r\n").await;
    })
    .await;
    assert_second_lost(&run(plan(&server, 2)).await, Loss::Garbage);
}

#[tokio::test]
async fn a_stalled_answer_times_out() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, HELLO).await;
        read_head(&mut stream).await;
        send(&mut stream, &HELLO[..20]).await;
        // Until the client gives up.
        read_head(&mut stream).await;
    })
    .await;
    let report = run(plan(&server, 2).timeout(Duration::from_millis(300))).await;
    assert_second_lost(&report, Loss::Timeout);
    let after = report.losses[0].after_us;
    assert!((300_000..3_000_000).contains(&after), "{after} us");
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_are_reported() {
    let twice = HELLO.repeat(2);
    let server = Server::start(move |number, mut stream| {
        let twice = twice.clone();
        async move {
            read_head(&mut stream).await;
            send(&mut stream, if number == 0 { &twice } else { HELLO }).await;
            read_head(&mut stream).await;
        }
    })
    .await;
    let report = run(plan(&server, 2)).await;
    let c = report.counts;
    assert_eq!((c.answered, c.unsolicited, c.opened), (2, 1, 2), "{report}");
    assert!(!report.is_clean());

    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        send(&mut stream, HELLO).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        send(&mut stream, "HTTP/1.1 408 Request Timeout\r\n\r\n").await;
        read_head(&mut stream).await;
    })
    .await;
    let report = run(plan(&server, 2).think([Duration::from_millis(500)])).await;
    assert_eq!(
        (report.counts.answered, report.counts.unsolicited),
        (2, 1),
        "{report}"
    );
    assert_eq!(report.lost(), 0);
}

#[tokio::test]
async fn a_closed_listener_ends_the_clients_without_loss() {
    let address = curtsy_prove::child::free_address().unwrap();
    let plan = Plan::to_address(address, "/").connections(3);
    let report = run(plan.clone()).await;
    assert_eq!((report.counts.refused, report.counts.sent), (3, 0));
    assert_eq!(report.lost(), 0);
    assert!(!report.is_clean(), "nothing was answered at all");

    let report = run(plan.refused_is_loss().duration(Duration::from_millis(200))).await;
    assert!(report.counts.refused >= 3, "{report}");
    assert_eq!(report.lost(), report.counts.refused);
    let in_segments: u64 = report.segments.iter().map(|s| s.lost).sum();
    assert_eq!(in_segments, report.lost());
}

#[tokio::test]
async fn a_missing_unix_socket_is_a_refusal() {
    let report = run(Plan::to_unix("/nonexistent/socket", "/").connections(2)).await;
    assert_eq!((report.counts.refused, report.lost()), (2, 0));
}
