//! `--while`: the command beside the load.

use crate::prove;
use crate::server::{BOUND, Demo};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_run_is_a_mark() {
    let demo = Demo::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log").display().to_string();
    let command = format!("echo ran >> {log}; echo output");
    let url = demo.url("/");
    let mut arguments = vec![&*url, "--conns=5", "--think=2", "--seconds=1"];
    arguments.extend(["--pause=300ms", "--json", "--while", &command]);
    let proved = prove(&arguments).await;
    assert_eq!(proved.code, Some(0), "{proved:?}");
    // What the command says is not mixed into the document.
    let report = proved.json();
    assert!(proved.stderr.contains("output\n"), "{proved:?}");
    let ran = std::fs::read_to_string(log).unwrap().lines().count();
    assert!(ran > 0);
    assert_eq!(report["while"]["count"], ran);
    assert_eq!(report["while"]["failed"], 0);
    assert_eq!(report["while"]["command"], *command);
    let runs = report["while"]["runs"].as_array().unwrap();
    assert_eq!(runs.len(), ran);
    assert!(runs.iter().all(|run| run["exit_code"] == 0));
    assert!(
        runs[0]["at_ms"].as_u64().unwrap() >= 300,
        "the pause comes first"
    );
    let labels: Vec<&str> = report["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|segment| segment["label"].as_str().unwrap())
        .collect();
    assert_eq!(labels[..3], ["start", "run 1", "after run 1"]);
    assert_eq!(labels.len(), 1 + 2 * ran);
    let groups = report["groups"].as_array().unwrap();
    let names: Vec<&str> = groups.iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["before", "during a run", "after a run"]);
    assert_eq!(groups[1]["segments"], ran);
    let answered = |value: &serde_json::Value| value["latency"]["count"].as_u64().unwrap();
    let sum: u64 = groups.iter().map(answered).sum();
    assert_eq!(sum, answered(&report), "each answer is in one group");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_fails_the_run_and_is_named() {
    let demo = Demo::start(&[]).await;
    let url = demo.url("/");
    let mut arguments = vec![&*url, "--conns=5", "--think=2", "--seconds=500ms"];
    arguments.extend(["--pause=200ms", "--while", "exit 3"]);
    let proved = prove(&arguments).await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    let said = "curtsy: run 1 of \"exit 3\" failed: exit 3, after ";
    assert!(proved.stderr.contains(said), "{proved:?}");
    assert!(
        proved.stdout.contains("while \"exit 3\": run "),
        "{proved:?}"
    );
    assert!(proved.stdout.contains("after run 1 (exit 3)"), "{proved:?}");
    assert!(proved.stdout.contains(" 0 lost\n"), "{proved:?}");
    let last = proved.stdout.lines().last().unwrap();
    assert!(last.starts_with("FAILED: ") && last.ends_with("runs of the command failed"));
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_goes_on_until_a_run_under_way_has_ended() {
    let demo = Demo::start(&[]).await;
    let url = demo.url("/");
    let mut arguments = vec![
        &*url,
        "--conns=2",
        "--think=10",
        "--seconds=300ms",
        "--json",
    ];
    arguments.extend(["--pause=200ms", "--while", "sleep 1"]);
    let proved = prove(&arguments).await;
    assert_eq!(proved.code, Some(0), "{proved:?}");
    let report = proved.json();
    assert_eq!(report["while"]["count"], 1);
    assert_eq!(report["while"]["runs"][0]["exit_code"], 0);
    let after = &report["segments"][2];
    assert_eq!(after["label"], "after run 1");
    assert!(after["latency"]["count"].as_u64().unwrap() > 0, "{after}");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_is_killed_with_what_it_started() {
    let demo = Demo::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let started = directory.path().join("pid").display().to_string();
    let command = format!("sleep 600 & echo $! > {started}; wait");
    let url = demo.url("/");
    let mut arguments = vec![&*url, "--conns=2", "--think=10", "--seconds=300ms"];
    arguments.extend(["--pause=100ms", "--while-timeout=1s"]);
    arguments.extend(["--while", &command]);
    let proved = prove(&arguments).await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    assert!(
        proved.stderr.contains("failed: killed after 1s"),
        "{proved:?}"
    );
    let pid = std::fs::read_to_string(started).unwrap();
    let gone = async {
        while is_alive(pid.trim()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, gone).await.unwrap();
    demo.stop().await;
}

/// Whether there is such a process, and it is not one that was killed and only waits to be reaped.
fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}
