//! How a run ends before its time.

use crate::server::BOUND;
use crate::{faulty, prove, start};
use curtsy_prove::child::ChildSignal;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_it_with_a_report() {
    for signal in [ChildSignal::INT, ChildSignal::TERM] {
        let (address, mut asked) = faulty::mute().await;
        let url = format!("http://{address}/");
        let arguments = [
            &*url,
            "--conns=3",
            "--seconds=600",
            "--timeout=1s",
            "--json",
        ];
        let proving = start(&arguments);
        let all_asked = asked.wait_for(|count| *count >= 3);
        timeout(BOUND, all_asked).await.unwrap().unwrap();
        proving.0.signal(signal).unwrap();
        let proved = proving.end().await;
        assert_eq!(proved.code, Some(1), "nothing was answered: {proved:?}");
        let report = proved.json();
        assert_eq!(report["ending"], "signal");
        // What was under way was waited for.
        assert!(report["counts"]["lost"]["timeout"].as_u64().unwrap() >= 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let (address, mut asked) = faulty::mute().await;
    let url = format!("http://{address}/");
    let mut proving = start(&[&url, "--conns=1", "--seconds=600", "--timeout=600s"]);
    let one_asked = asked.wait_for(|count| *count >= 1);
    timeout(BOUND, one_asked).await.unwrap().unwrap();
    proving.0.signal(ChildSignal::INT).unwrap();
    proving
        .0
        .wait_for_line(|line| line.contains("waiting for what is under way"), BOUND)
        .await
        .unwrap();
    proving.0.signal(ChildSignal::INT).unwrap();
    let proved = proving.end().await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    assert!(proved.stderr.contains("without a report"), "{proved:?}");
    assert_eq!(proved.stdout, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_when_nobody_listens_any_more() {
    let address = faulty::leaving(5).await;
    let url = format!("http://{address}/");
    let proved = prove(&[&url, "--conns=5", "--seconds=600"]).await;
    assert_eq!(proved.code, Some(0), "{proved:?}");
    assert!(
        proved.stdout.contains("5 sent, 5 answered, 0 lost"),
        "{proved:?}"
    );
    assert!(
        proved
            .stdout
            .contains("ended early: nobody listened any more")
    );

    let address = faulty::leaving(5).await;
    let url = format!("http://{address}/");
    let arguments = [
        &*url,
        "--conns=5",
        "--seconds=1",
        "--refused-is-loss",
        "--json",
    ];
    let proved = prove(&arguments).await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    let report = proved.json();
    assert_eq!(report["ending"], "time");
    assert_eq!(report["lost"], report["counts"]["refused"]);
}
