//! What is refused before any load: wrong command lines, servers that are not there.

use crate::{faulty, prove};
use curtsy_prove::child::free_address;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_wrong_command_line_exits_with_2_and_says_why() {
    let url = "http://127.0.0.1:9/";
    for (arguments, why) in [
        (vec![], "<URL>"),
        (vec!["ftp://127.0.0.1/"], "write http://HOST"),
        (vec!["127.0.0.1:9000"], "write http://HOST"),
        (vec![url, "--conns=0"], "--conns"),
        (vec![url, "--think=soon"], "500ms"),
        (vec![url, "--seconds=0"], "some time"),
        (vec![url, "--timeout=0"], "timeout of 0"),
        (vec![url, "--pause=1s"], "--while"),
        (vec![url, "--while=true", "--seconds=1"], "would never run"),
        (
            vec![url, "--websocket=10", "--http2=2"],
            "cannot be used with",
        ),
        (vec![url, "--upload=much"], "1M"),
    ] {
        let proved = prove(&arguments).await;
        assert_eq!(proved.code, Some(2), "{arguments:?}: {proved:?}");
        assert!(proved.stderr.contains(why), "{arguments:?}: {proved:?}");
        assert_eq!(proved.stdout, "");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_so() {
    let address = free_address().unwrap();
    for flags in [&[][..], &["--refused-is-loss"], &["--while=true"]] {
        let url = format!("http://{address}/");
        // The default ten seconds are not waited for, and there is no report about nothing.
        let proved = prove(&[&[&*url, "--json"], flags].concat()).await;
        assert_eq!(proved.code, Some(1), "{proved:?}");
        let why = format!("curtsy: cannot reach {url}: connection refused");
        assert!(proved.stderr.contains(&why), "{proved:?}");
        assert_eq!(proved.stdout, "");
    }
    let proved = prove(&["unix:/nonexistent/socket", "--seconds=1"]).await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    assert!(
        proved
            .stderr
            .contains("cannot reach unix:/nonexistent/socket")
    );
}

#[tokio::test]
async fn a_server_that_takes_no_connection_is_given_up() {
    let (full, _listener, _queued) = faulty::full().await;
    let url = format!("http://{full}/");
    let begun = Instant::now();
    let proved = prove(&[&url, "--conns=1000", "--seconds=600", "--timeout=3s"]).await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    assert!(proved.stderr.contains("timed out"), "{proved:?}");
    // Not the time of one try after another for the clients that wait for their turn.
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_picture_that_cannot_be_written_is_told_before_the_load() {
    let proved = prove(&["http://127.0.0.1:9/", "--svg=/nonexistent/x.svg"]).await;
    assert_eq!(proved.code, Some(1), "{proved:?}");
    assert!(proved.stderr.contains("/nonexistent/x.svg: No such file"));
}

#[tokio::test]
async fn the_help_teaches_by_examples() {
    let proved = prove(&["--help"]).await;
    assert_eq!(proved.code, Some(0));
    for part in ["--while 'systemctl reload my-app'", "Exit codes:", "Ctrl-C"] {
        assert!(proved.stdout.contains(part), "{part}");
    }
}
