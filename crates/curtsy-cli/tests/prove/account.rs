//! What is counted, against servers that serve and servers that fail.

use crate::server::Demo;
use crate::{faulty, prove};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_serves_is_proved() {
    let demo = Demo::start(&[]).await;
    let proved = prove(&[&demo.url("/"), "--conns", "20", "--seconds", "1"]).await;
    assert_eq!(proved.code, Some(0), "{proved:?}");
    assert!(proved.stdout.contains(" 0 lost\n"), "{proved:?}");
    assert!(proved.stdout.contains("\nOK: nothing lost of "));
    assert!(proved.stdout.contains("  answers  "), "no timeline");
    assert_eq!(proved.stderr, "");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_comes_as_json_and_as_a_picture() {
    let demo = Demo::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let svg = directory.path().join("timeline.svg");
    let url = demo.url("/pid");
    let mut arguments = vec![&*url, "--conns=10", "--seconds=1", "--think=2,5"];
    arguments.extend(["--json", "--pids", "--svg", svg.to_str().unwrap()]);
    let proved = prove(&arguments).await;
    assert_eq!(proved.code, Some(0), "{proved:?}");
    let report = proved.json();
    assert_eq!(report["lost"], 0);
    assert_eq!(report["clean"], true);
    assert_eq!(report["ending"], "time");
    assert_eq!(report["connections"], 10);
    assert!(report["while"].is_null());
    assert!(report["counts"]["answered"].as_u64().unwrap() > 10);
    assert!(report["latency"]["p99_us"].as_u64().unwrap() > 0);
    let answers = report["answers"].as_object().unwrap();
    let pid = demo.child.pid().unwrap();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(
        answers
            .keys()
            .all(|a| a.starts_with(&format!("pid={pid} ")))
    );
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_loses_requests() {
    let demo = Demo::start(&[]).await;
    let kill = format!("kill -9 {}", demo.child.pid().unwrap());
    let url = demo.url("/");
    let mut arguments = vec![&*url, "--conns=50", "--think=0", "--seconds=1"];
    arguments.extend(["--pause=300ms", "--json", "--while", &kill]);
    let proved = prove(&arguments).await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    let report = proved.json();
    assert_eq!(report["clean"], false);
    let counts = &report["counts"];
    assert!(counts["answered"].as_u64().unwrap() > 0);
    let refused = counts["refused"].as_u64().unwrap();
    assert!(refused > 0, "with a command, refusals are counted");
    assert!(report["lost"].as_u64().unwrap() > refused, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_are_lost_requests() {
    let address = faulty::resetting().await;
    let url = format!("http://{address}/");
    let mut arguments = vec![&*url, "--conns=5", "--seconds=1", "--think=20"];
    let proved = prove(&arguments).await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    assert!(proved.stdout.contains(" reset\n"), "{proved:?}");
    assert!(proved.stdout.contains("\nFAILED: "), "{proved:?}");
    assert!(proved.stdout.contains("nothing answered"), "{proved:?}");
    arguments.push("--json");
    let report = prove(&arguments).await.json();
    assert_eq!(report["lost"], report["counts"]["sent"]);
    assert_eq!(report["counts"]["lost"]["reset"], report["lost"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_a_timeout() {
    let (address, _) = faulty::mute().await;
    let url = format!("http://{address}/");
    let arguments = [
        &*url,
        "--conns=2",
        "--seconds=1",
        "--timeout=200ms",
        "--json",
    ];
    let proved = prove(&arguments).await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    let report = proved.json();
    assert_eq!(
        report["counts"]["lost"]["timeout"],
        report["counts"]["sent"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_status_is_a_loss() {
    let demo = Demo::start(&[]).await;
    let url = demo.url("/nothing-here");
    let flags = ["--conns=2", "--seconds=300ms", "--think=10"];
    let lost = prove(&[&[&*url], &flags[..]].concat()).await;
    assert_eq!(lost.code, Some(1), "{lost:?}");
    assert!(lost.stdout.contains(" wrong_status\n"), "{lost:?}");
    let expected = prove(&[&[&*url, "--expect-status=404"], &flags[..]].concat()).await;
    assert_eq!(expected.code, Some(0), "{expected:?}");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_ways_in() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s").display().to_string();
    let demo = Demo::start(&["--listen", &format!("unix:{socket}")]).await;
    let echoes = demo.url("/ws");
    let upload = demo.url("/upload");
    let root = demo.url("/");
    let unix = format!("unix:{socket}:/pid");
    for (arguments, bytes_each) in [
        (vec![&*echoes, "--websocket", "1k"], Some(1024)),
        (
            vec![&*upload, "--upload", "64k"],
            Some("received=65536".len() as u64),
        ),
        (
            vec![&*root, "--new-connections"],
            Some("Hello, World!".len() as u64),
        ),
        (vec![&*unix], None),
    ] {
        let flags = ["--conns=4", "--seconds=500ms", "--think=5", "--json"];
        let proved = prove(&[&arguments[..], &flags[..]].concat()).await;
        assert_eq!(proved.code, Some(0), "{proved:?}");
        let counts = &proved.json()["counts"];
        let number = |name: &str| counts[name].as_u64().unwrap();
        assert!(number("answered") > 0, "{arguments:?}");
        if let Some(bytes) = bytes_each {
            assert_eq!(
                number("body_bytes"),
                number("answered") * bytes,
                "{arguments:?}"
            );
        }
        if arguments.contains(&"--new-connections") {
            assert_eq!(number("opened"), number("sent"));
        }
    }
    demo.stop().await;
}
