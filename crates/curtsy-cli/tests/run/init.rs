//! The supervisor as process 1 of a container.

use crate::supervisor::{BOUND, CURTSY};
use curtsy_prove::child::Child;
use rustix::process::{Pid, Signal, kill_process};

#[tokio::test]
async fn process_one_reaps_what_it_inherits_and_stops() {
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let probe = Child::start("unshare", unshare.iter().chain(&["true"]));
    let is_permitted = match probe {
        Ok(mut probe) => probe.wait_exit(BOUND).await.unwrap().status.success(),
        Err(_) => false,
    };
    if !is_permitted {
        println!("SKIPPED: no pid namespace to be had here");
        return;
    }
    // The subshell ends at once, and its child becomes process 1's; a zombie would keep its directory.
    let script = "trap 'exit 5' TERM; echo parent=$PPID; orphan=$(sleep 0.1 >&2 & echo $!); \
                  while [ -d /proc/$orphan ]; do sleep 0.05; done; echo reaped; \
                  while :; do sleep 0.05; done";
    let run = [
        CURTSY,
        "run",
        "--listen",
        "127.0.0.1:0",
        "--ready",
        "delay:10ms",
    ];
    let command = ["--", "sh", "-c", script];
    let arguments = unshare.iter().chain(&run).chain(&command);
    let mut child = Child::start("unshare", arguments).unwrap();
    for text in ["parent=1", "generation 0 serves", "reaped"] {
        child
            .wait_for_line(|line| line == text || line.ends_with(text), BOUND)
            .await
            .unwrap();
    }
    // `unshare` waits and passes nothing on: the signal goes to its child, process 1 in there.
    let parent = child.pid().unwrap();
    let children = format!("/proc/{parent}/task/{parent}/children");
    let children = std::fs::read_to_string(children).unwrap();
    let init = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    kill_process(init, Signal::TERM).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(5), "{}", child.stderr());
}
