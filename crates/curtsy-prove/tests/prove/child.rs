//! Child processes: lines, signals, exits, usage, and nothing left behind.

use std::path::Path;
use std::time::Duration;

use curtsy_prove::child::{Child, ChildSignal, free_address, usage_of};

const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn lines_of_both_streams_are_kept_and_found() {
    let mut child =
        Child::start("sh", ["-c", "echo one; echo two >&2; printf three; exit 7"]).unwrap();
    assert_eq!(
        child
            .wait_for_line(|l| l.starts_with("tw"), BOUND)
            .await
            .unwrap(),
        "two"
    );
    // A line that came before is found as well, and one without its line end.
    assert_eq!(
        child.wait_for_line(|l| l == "one", BOUND).await.unwrap(),
        "one"
    );
    assert_eq!(
        child.wait_for_line(|l| l == "three", BOUND).await.unwrap(),
        "three"
    );
    let exit = child.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(7));
    assert_eq!(child.wait_exit(BOUND).await.unwrap(), exit);
    child.wait_output_end(BOUND).await.unwrap();
    assert_eq!(
        (child.stdout().as_str(), child.stderr().as_str()),
        ("one\nthree\n", "two\n")
    );
    assert!(child.pid().is_none());
    assert!(child.signal(ChildSignal::TERM).unwrap_err().is_exited());
    assert!(child.usage().unwrap_err().is_exited());
}

#[tokio::test]
async fn waits_are_bounded_and_tell_what_was_said() {
    let mut child = Child::start("sh", ["-c", "echo said; exec sleep 600"]).unwrap();
    child.wait_for_line(|l| l == "said", BOUND).await.unwrap();
    let short = Duration::from_millis(50);
    let error = child
        .wait_for_line(|l| l == "never", short)
        .await
        .unwrap_err();
    assert!(
        error.is_timed_out() && error.to_string().contains("| said"),
        "{error}"
    );
    assert!(child.wait_exit(short).await.unwrap_err().is_timed_out());
    child.signal(ChildSignal::TERM).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&exit.status),
        Some(15)
    );
    let error = child
        .wait_for_line(|l| l == "never", BOUND)
        .await
        .unwrap_err();
    assert!(error.is_exited(), "{error}");
}

#[tokio::test]
async fn a_dropped_child_is_killed() {
    let child = Child::start("sleep", ["600"]).unwrap();
    let directory = format!("/proc/{}", child.pid().unwrap());
    assert!(Path::new(&directory).exists());
    let pid = child.pid().unwrap();
    drop(child);
    wait_until_gone(pid).await;
}

async fn wait_until_gone(pid: u32) {
    let gone = async {
        // A zombie has no memory to tell of any more.
        while usage_of(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(BOUND, gone).await.expect("it is gone");
}

#[tokio::test]
async fn what_a_child_started_goes_with_it() {
    for (script, ends_first) in [
        ("sleep 600 & echo $!; wait", false),
        ("sleep 600 & echo $!", true),
    ] {
        let mut child = Child::start("sh", ["-c", script]).unwrap();
        let line = child.wait_for_line(|_| true, BOUND).await.unwrap();
        let successor: u32 = line.parse().unwrap();
        if ends_first {
            child.wait_exit(BOUND).await.unwrap();
        }
        assert!(usage_of(successor).is_ok());
        drop(child);
        wait_until_gone(successor).await;
    }
}

#[tokio::test]
async fn usage_is_that_of_the_process() {
    let script =
        "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exec 9</dev/null; echo done; read x";
    let mut child = Child::start("sh", ["-c", &format!("{script} < /dev/zero")]).unwrap();
    child.wait_for_line(|l| l == "done", BOUND).await.unwrap();
    let usage = child.usage().unwrap();
    assert!(usage.cpu >= Duration::from_millis(20), "{usage:?}");
    assert!((1 << 16..1 << 26).contains(&usage.pss_bytes), "{usage:?}");
    assert!((4..10).contains(&usage.descriptors), "{usage:?}");
    assert_eq!(usage.threads, 1);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let error = Child::start("/nonexistent/program", [""; 0]).unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/program"),
        "{error}"
    );
}

#[test]
fn free_addresses_can_be_bound() {
    let address = free_address().unwrap();
    assert!(address.ip().is_loopback());
    std::net::TcpListener::bind(address).unwrap();
}
