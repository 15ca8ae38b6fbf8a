//! What is told meanwhile, and how a run ends before its time.

use crate::server::{BOUND, Demo};
use crate::{faulty, prove, start};
use curtsy_prove::child::ChildSignal;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use tokio::process::Command;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_a_line_moves() {
    let demo = Demo::start(&[]).await;
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    unlockpt(&terminal).unwrap();
    let end = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_curtsy"));
    command
        .args(["prove", &demo.url("/"), "--conns=2", "--think=2"])
        .args(["--seconds=1", "--pause=300ms", "--while=exit 3"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(end)
        .kill_on_drop(true);
    let proving = command.spawn().unwrap();
    // It holds the terminal's end too; without it, reading ends when the process has.
    drop(command);
    let shown = tokio::task::spawn_blocking(move || {
        let mut shown = Vec::new();
        // Its end is an error on Linux.
        let _ = File::from(terminal).read_to_end(&mut shown);
        String::from_utf8(shown).unwrap()
    });
    let output = timeout(BOUND, proving.wait_with_output()).await.unwrap();
    let shown = timeout(BOUND, shown).await.unwrap().unwrap();
    assert!(shown.contains(" of 1 s  "), "{shown:?}");
    assert!(shown.contains("  0 lost  2 open  after run 1"), "{shown:?}");
    // What is said for good does not begin in the middle of the line that moves.
    let said = "\r\u{1b}[2Kcurtsy: run 1 of \"exit 3\" failed";
    assert!(shown.contains(said), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[2K"), "nothing is left: {shown:?}");
    let report = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(!report.contains('\u{1b}'), "{report:?}");
    demo.stop().await;
}

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
