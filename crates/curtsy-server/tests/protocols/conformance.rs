//! What the standards of HTTP/2 ask of a server, in raw frames, and a list of what is met that can
//! only grow.
//!
//! The list is `tests/conformance/http2-passes.txt`: a date, the day on which the case was met
//! first, and the case's name. A listed case that fails, or that is gone, fails the test. With
//! `CURTSY_CONFORMANCE_WRITE=1` in the environment cases that are met and not listed are added.

use crate::support::*;
use crate::tools::{find, run, run_on};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

fn place(name: &str) -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.join("tests/conformance").join(name)
}

/// The day, as the list has it.
fn today() -> String {
    // `Sun, 06 Nov 1994 08:49:37 GMT`
    let now = httpdate::fmt_http_date(SystemTime::now());
    let parts: Vec<&str> = now.split(' ').collect();
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(parts[2]).unwrap() / 3 + 1;
    format!("{}-{month:02}-{}", parts[3], parts[1])
}

/// The listed cases and their days.
fn listed(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(day, case)| (case.to_owned(), day.to_owned()))
        .collect()
}

/// Asks everything of a server: the cases that it meets, and what is said of the others. `None` where that cannot be.
pub(crate) async fn met(server: &Running) -> Option<(BTreeSet<String>, String)> {
    let python = find("python3")?;
    let probe = "import hpack, hyperframe; print('there')";
    if !run(python, &["-c", probe], "").await.starts_with("there") {
        println!("SKIPPED: the Python packages hpack and hyperframe are not installed");
        return None;
    }
    let script = place("http2.py");
    let address = server.address.to_string();
    let arguments = ["-B", script.to_str().unwrap(), &address];
    // Its cases are bounded one by one.
    let said = run_on(python, &arguments, "").await;
    let (met, failed): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.starts_with("PASS "));
    let met = met.iter().map(|line| line["PASS ".len()..].to_owned());
    Some((met.collect(), failed.join("\n")))
}

/// The listed cases that are not among those.
pub(crate) fn lost(met: &BTreeSet<String>) -> Vec<String> {
    let listed = listed(&std::fs::read_to_string(place("http2-passes.txt")).unwrap());
    let lost = listed.into_keys().filter(|case| !met.contains(case));
    lost.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_the_standards_that_was_met_is_met() {
    let server = serve(any_port(), |b| b.drain(linger(std::time::Duration::ZERO))).await;
    let Some((met, failed)) = met(&server).await else {
        return;
    };
    drop(server);
    println!("{} cases are met; those that are not:\n{failed}", met.len());
    let lost = lost(&met);
    assert!(lost.is_empty(), "no longer met: {lost:#?}\n{failed}");

    let path = place("http2-passes.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let listed = listed(&text);
    let new: Vec<_> = (met.iter())
        .filter(|case| !listed.contains_key(*case))
        .collect();
    if new.is_empty() {
        return;
    }
    if std::env::var_os("CURTSY_CONFORMANCE_WRITE").is_none() {
        println!("met, and to be listed (CURTSY_CONFORMANCE_WRITE=1): {new:#?}");
        return;
    }
    let today = today();
    let added: String = new.iter().map(|case| format!("{today} {case}\n")).collect();
    std::fs::write(&path, text + &added).unwrap();
}
