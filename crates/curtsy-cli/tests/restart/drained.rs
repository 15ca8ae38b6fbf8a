//! What does not go over in a restart, connections with TLS or HTTP/2, is drained: each is told, and no request is lost.

use crate::row::{BOUND, Row};
use curtsy_prove::Plan;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

const RESTARTS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_http2_are_told_and_lose_nothing() {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_curtsy")));
    command
        .args(["demo", "--listen", "127.0.0.1:0", "--bake-after", "100ms"])
        .args(["--tls", "self-signed", "--mode", "both"]);
    let mut row = Row::run(command, "://").await;
    let plan = |scheme: &str| {
        Plan::to(&format!("{scheme}://{}/pid", row.address))
            .unwrap()
            .connections(20)
            .think([0, 2, 50].map(Duration::from_millis))
            .insecure()
            .refused_is_loss()
            .record_answers()
    };
    let runs = [
        ("HTTP/1 over TLS", plan("https")),
        ("HTTP/2 over TLS", plan("https").http2(4)),
        ("HTTP/2", plan("http").http2(4)),
    ];
    let runs = runs.map(|(what, plan)| (what, plan.start()));
    for restart in 0..=RESTARTS {
        for (_, running) in &runs {
            let answered = running.counts().answered + 200;
            running.wait_answered(answered, BOUND).await.unwrap();
        }
        if restart < RESTARTS {
            row.restart().await;
        }
    }
    for (what, running) in runs {
        running.stop();
        let report = running.finish().await;
        let counts = &report.counts;
        let stderr = row.child.stderr();
        assert_eq!(report.lost(), 0, "{what}: {report}\n{stderr}");
        // Each of the old process's said that it was at its end (`Connection: close`, GOAWAY), for each of them was in use.
        assert!(
            counts.closed_by_server_announced >= 20 * RESTARTS as u64,
            "{what}: {report}"
        );
        assert_eq!(
            counts.closed_while_idle + counts.closed_by_loss,
            0,
            "{what}: {report}"
        );
        for generation in 0..=RESTARTS {
            let by = format!("generation={generation}");
            let has_answered = report.answers.keys().any(|answer| answer.ends_with(&by));
            assert!(has_answered, "{what}: nothing from {by}\n{report}");
        }
    }
    row.stop().await;
}
