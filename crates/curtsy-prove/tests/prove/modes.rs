//! What a plan can ask for beyond a GET on a kept connection, and what a run tells while it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use curtsy_prove::{Plan, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::Notify;

use crate::servers::{HELLO, Server, read_head, send, serve_hello};

async fn finish(plan: Plan) -> Report {
    plan.start().finish().await
}

fn one(server: &Server) -> Plan {
    Plan::to_address(server.address, "/").connections(1)
}

/// Takes a body of `length` bytes and tells how long it was.
async fn take_upload(stream: &mut TcpStream, length: u64) {
    let mut body = stream.take(length);
    let received = tokio::io::copy(&mut body, &mut tokio::io::sink())
        .await
        .expect("a body");
    let text = format!("received={received}");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    send(body.into_inner(), &answer).await;
}

#[tokio::test]
async fn a_connection_for_each_request() {
    let server = Server::start(serve_hello).await;
    let plan = one(&server).connection_per_request().requests_each(5);
    let report = finish(plan.connections(4)).await;
    assert!(report.is_clean(), "{report}");
    let c = report.counts;
    assert_eq!((c.answered, c.opened, c.closed_by_client), (20, 20, 20));
    assert_eq!(server.accepted(), 20);
}

#[tokio::test]
async fn an_upload_is_checked_by_the_count_that_comes_back() {
    const BYTES: u64 = 3_000_000;
    let server = Server::start(|_, mut stream| async move {
        while read_head(&mut stream).await {
            take_upload(&mut stream, BYTES).await;
        }
    })
    .await;
    let plan = one(&server).upload(BYTES).requests_each(3);
    let report = finish(plan.clone().expect_text("received=3000000")).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.counts.opened, 1);
    let report = finish(plan.expect_text("received=3000001")).await;
    assert_eq!(report.counts.lost.wrong_body, 3, "{report}");
}

#[tokio::test]
async fn a_paced_upload_takes_its_time() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        take_upload(&mut stream, 30_000).await;
        read_head(&mut stream).await;
    })
    .await;
    let plan = one(&server).upload_paced(30_000, 100_000).requests_each(1);
    let report = finish(plan.expect_text("received=30000")).await;
    assert!(report.is_clean(), "{report}");
    // The last of 15 pieces is due after 14/15 of 300 ms.
    let took = report.latency.max_us;
    assert!((279_000..3_000_000).contains(&took), "{took} us");
}

#[tokio::test]
async fn an_answer_before_the_upload_is_over_is_an_answer() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 413 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        send(&mut stream, answer).await;
        // Takes nothing more until the client is gone, so that the upload can never be over.
        stream.readable().await.unwrap();
        let mut byte = [0; 1];
        while stream.peek(&mut byte).await.is_ok_and(|n| n > 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let plan = one(&server).upload(100_000_000).requests_each(1);
    let report = finish(plan.expect_status(413)).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.counts.closed_by_server_announced, 1);
}

#[tokio::test]
async fn an_upload_cut_by_the_server_is_a_reset() {
    let server = Server::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.read_exact(&mut [0; 1000]).await.unwrap();
    })
    .await;
    let report = finish(one(&server).upload(100_000_000).requests_each(1)).await;
    assert_eq!(report.counts.lost.reset, 1, "{report}");
}

#[tokio::test]
async fn a_large_download_is_checked_to_its_length() {
    const CHUNKS: u64 = 300;
    let server = Server::start(|_, mut stream| async move {
        let chunk = format!("10000\r\n{}\r\n", "y".repeat(0x10000));
        while read_head(&mut stream).await {
            send(
                &mut stream,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            )
            .await;
            for _ in 0..CHUNKS {
                send(&mut stream, &chunk).await;
            }
            send(&mut stream, "0\r\n\r\n").await;
        }
    })
    .await;
    let bytes = CHUNKS * 0x10000;
    let plan = one(&server).requests_each(2);
    let report = finish(plan.clone().expect_length(bytes)).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.counts.body_bytes, 2 * bytes);
    let report = finish(plan.expect_length(bytes - 1)).await;
    assert_eq!(report.counts.lost.wrong_body, 2);
}

#[tokio::test]
async fn a_head_is_held_half_sent() {
    let held_us = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&held_us);
    let server = Server::start(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            stream.readable().await.unwrap();
            let first_byte = Instant::now();
            read_head(&mut stream).await;
            let held = u64::try_from(first_byte.elapsed().as_micros()).unwrap();
            seen.store(held, Ordering::Relaxed);
            send(&mut stream, HELLO).await;
            read_head(&mut stream).await;
        }
    })
    .await;
    let plan = one(&server)
        .hold_head(Duration::from_millis(100))
        .requests_each(1);
    let report = finish(plan).await;
    assert!(report.is_clean(), "{report}");
    assert!(held_us.load(Ordering::Relaxed) > 50_000);
}

#[tokio::test]
async fn unix_sockets_are_served_alike() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(HELLO.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let plan = Plan::to_unix(&path, "/x?y").connections(1).requests_each(1);
    let report = finish(plan.field("X-Test", "1")).await;
    assert!(report.is_clean(), "{report}");
    let head = server.await.unwrap();
    assert!(
        head.starts_with("GET /x?y HTTP/1.1\r\nHost: localhost\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nX-Test: 1\r\nProve-Request: 1\r\n\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn stop_lets_requests_under_way_end() {
    let asked = Arc::new(Notify::new());
    let go_on = Arc::new(Notify::new());
    let (asked_there, go_on_there) = (Arc::clone(&asked), Arc::clone(&go_on));
    let server = Server::start(move |_, mut stream| {
        let (asked, go_on) = (Arc::clone(&asked_there), Arc::clone(&go_on_there));
        async move {
            read_head(&mut stream).await;
            asked.notify_one();
            go_on.notified().await;
            send(&mut stream, HELLO).await;
            read_head(&mut stream).await;
        }
    })
    .await;
    let run = one(&server).start();
    asked.notified().await;
    run.stop();
    assert_eq!((run.counts().sent, run.counts().answered), (1, 0));
    go_on.notify_one();
    let report = run.finish().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.counts.sent, report.counts.closed_by_client), (1, 1));
}

#[tokio::test]
async fn a_number_of_answers_can_be_waited_for() {
    let server = Server::start(serve_hello).await;
    let run = one(&server).connections(3).requests_each(5).start();
    let bound = Duration::from_secs(20);
    // Two waits at once, the lesser of which is over first.
    let (all, some) = tokio::join!(run.wait_answered(15, bound), run.wait_answered(7, bound));
    all.and(some).unwrap();
    assert_eq!(run.counts().answered, 15);
    run.wait_answered(15, Duration::ZERO).await.unwrap();
    let error = run
        .wait_answered(16, Duration::from_millis(20))
        .await
        .unwrap_err();
    assert!(
        error.is_timed_out() && error.to_string().contains("answered: 15"),
        "{error}"
    );
    assert!(run.finish().await.is_clean());
}

#[tokio::test]
async fn stop_ends_a_long_pause() {
    let server = Server::start(serve_hello).await;
    let begun = Instant::now();
    let plan = one(&server).think([Duration::from_secs(3600)]);
    let report = finish(plan.duration(Duration::from_millis(100))).await;
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(report.counts.answered, 1);
}

#[tokio::test]
async fn different_answers_are_told_apart() {
    let server = Server::start(|number, mut stream| async move {
        let body = format!("pid=7 generation={}", number / 2);
        let length = body.len();
        while read_head(&mut stream).await {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}\n");
            send(&mut stream, &answer[..answer.len() - 1]).await;
        }
    })
    .await;
    let plan = one(&server)
        .connections(3)
        .requests_each(4)
        .record_answers();
    let report = finish(plan).await;
    let told: Vec<_> = report
        .answers
        .iter()
        .map(|(text, seen)| (text.as_str(), seen.count))
        .collect();
    assert_eq!(told, [("pid=7 generation=0", 8), ("pid=7 generation=1", 4)]);
}

#[tokio::test]
async fn marks_cut_the_report_and_every_form_of_it_tells_the_same() {
    let server = Server::start(|number, mut stream| async move {
        while read_head(&mut stream).await {
            let answer = if number == 0 {
                HELLO
            } else {
                "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
            };
            send(&mut stream, answer).await;
        }
    })
    .await;
    let run = one(&server)
        .connections(2)
        .think([Duration::from_millis(5)])
        .start();
    let mut seen = 0;
    for label in ["before <&>", "after"] {
        run.wait_answered(seen + 10, Duration::from_secs(20))
            .await
            .unwrap();
        seen = run.counts().answered;
        run.mark(label);
    }
    run.stop();
    let report = run.finish().await;
    let labels: Vec<_> = report.segments.iter().map(|s| s.label.as_str()).collect();
    assert_eq!(labels, ["start", "before <&>", "after"]);
    assert!(report.segments[0].latency.count >= 10);
    assert!(report.segments[1].latency.count >= 10);
    let answered: u64 = report.segments.iter().map(|s| s.latency.count).sum();
    assert_eq!(answered, report.counts.answered);
    assert_eq!(report.segments[0].to_ms, report.segments[1].from_ms);

    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json["counts"]["lost"]["wrong_status"],
        report.counts.lost.wrong_status
    );
    assert_eq!(json["losses"][0]["cause"], "wrong_status");

    let text = report.to_string();
    let summary = format!("{} lost", report.lost());
    assert!(text.contains(&summary), "{text}");
    assert!(text.contains("lost: request"), "{text}");
    assert!(text.contains("after"), "{text}");

    let svg = report.svg();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("before &lt;&amp;&gt;") && svg.contains("class=\"lost\""));
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[tokio::test]
async fn what_happens_again_and_again_is_told_together() {
    let server = Server::start(serve_hello).await;
    let run = one(&server)
        .connections(2)
        .think([Duration::from_millis(5)])
        .start();
    let mut seen = 0;
    for number in 0..20 {
        for (group, label) in [("during", format!("<{number}>")), ("after", "-".to_owned())] {
            seen += 2;
            let bound = Duration::from_secs(20);
            run.wait_answered(seen, bound).await.unwrap();
            run.mark_in(group, &label);
        }
    }
    run.stop();
    let report = run.finish().await;
    let groups: Vec<_> = report
        .groups
        .iter()
        .map(|group| (group.name.as_str(), group.segments))
        .collect();
    assert_eq!(groups, [("before", 1), ("during", 20), ("after", 20)]);
    let of = |name: &str| {
        let group = report.groups.iter().find(|group| group.name == name);
        group.unwrap().latency
    };
    let all = [of("before"), of("during"), of("after")];
    let answered: u64 = all.iter().map(|latency| latency.count).sum();
    assert_eq!(answered, report.counts.answered);
    let slowest = all.iter().map(|latency| latency.max_us).max();
    assert_eq!(slowest, Some(report.latency.max_us));

    // A long list is cut, and the chart shows the marks without their labels.
    let text = report.to_string();
    assert!(text.contains("... and 17 more"), "{text}");
    assert!(text.contains("all 20 during"), "{text}");
    assert!(text.contains("  marks  "), "{text}");
    let svg = report.svg();
    assert_eq!(svg.matches("class=\"mark\"").count(), 40);
    // Of labels at one place, those that would cover others are left out.
    let labels = svg.matches("class=\"ink label\"").count();
    assert!((1..40).contains(&labels), "{labels} labels");
}

#[tokio::test]
async fn an_empty_run_can_be_reported() {
    let server = Server::start(serve_hello).await;
    let report = finish(one(&server).requests_each(0)).await;
    assert!(!report.is_clean());
    assert!(!report.to_string().is_empty());
    assert!(!report.svg().contains("NaN"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_balance() {
    let server = Server::start(serve_hello).await;
    let plan = one(&server)
        .connections(2000)
        .think([Duration::from_millis(100)]);
    let report = finish(plan.requests_each(5)).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        (report.counts.answered, report.counts.opened),
        (10_000, 2000)
    );
}
