//! What is shipped for Kubernetes: its manifests fit their schema, and its flags do what they say.

use crate::fleet::{BOUND, shipped};
use curtsy_prove::child::{Child, ChildSignal};
use std::process::Command;

/// What follows `name` on its line of the manifest.
fn number(manifest: &str, name: &str) -> u64 {
    let mut found = manifest
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once(name));
    let (_, rest) = found.next().unwrap_or_else(|| panic!("no {name}"));
    let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn the_manifests_fit_their_schema() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxies/manifests.py");
    let judge = |manifest: &std::path::Path| {
        Command::new("python3")
            .args(["-B", script])
            .arg(manifest)
            .output()
    };
    let given = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/kubernetes/curtsy.yaml"
    );
    let judged = match judge(given.as_ref()) {
        Ok(judged) if judged.status.code() != Some(77) => judged,
        _ => return println!("SKIPPED: no Python with the Kubernetes client"),
    };
    let said = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success(), "{said}");
    // It does find faults.
    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("wrong.yaml");
    let manifest = shipped("kubernetes/curtsy.yaml");
    for (right, fault) in [
        ("replicas: 3", "replicas: three"),
        ("readinessProbe", "readyProbe"),
        ("containerPort: 9000", "port: 9000"),
    ] {
        assert!(manifest.contains(right), "{right}");
        std::fs::write(&wrong, manifest.replace(right, fault)).unwrap();
        assert_eq!(judge(&wrong).unwrap().status.code(), Some(1), "{fault}");
    }
}

#[test]
fn the_grace_period_is_longer_than_lame_duck_and_drain() {
    let manifest = shipped("kubernetes/curtsy.yaml");
    let (grace, duck, drain) = (
        number(&manifest, "terminationGracePeriodSeconds:"),
        number(&manifest, "--lame-duck="),
        number(&manifest, "--deadline="),
    );
    assert!(grace > duck + drain, "{grace} s for {duck} s and {drain} s");
    // The lame duck lasts until everybody has been told.
    let told = number(&manifest, "periodSeconds:") * number(&manifest, "failureThreshold:");
    assert!(duck > told, "{duck} s, told within {told} s");
    let settings = manifest
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    assert!(!settings.into_iter().any(|line| line.contains("preStop")));
}

#[tokio::test]
async fn the_containers_arguments_are_the_programs() {
    let manifest = shipped("kubernetes/curtsy.yaml");
    let arguments = manifest
        .lines()
        .skip_while(|line| line.trim() != "args:")
        .skip(1);
    let arguments: Vec<String> = arguments
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .map_while(|line| line.strip_prefix("- "))
        .map(|argument| {
            argument
                .replace("=:9000", "=127.0.0.1:0")
                .replace("0.0.0.0:9001", "0.0.0.0:0")
                .replace("--lame-duck=10s", "--lame-duck=200ms")
        })
        .collect();
    assert!(arguments.len() >= 5, "{arguments:?}");
    let mut child = Child::start(env!("CARGO_BIN_EXE_curtsy"), &arguments).unwrap();
    let said = child
        .wait_for_line(|line| line.contains("admin on http://0.0.0.0:"), BOUND)
        .await;
    said.unwrap_or_else(|error| panic!("{error}\n{}", child.stderr()));
    child.signal(ChildSignal::TERM).unwrap();
    let exit = child.wait_exit(BOUND).await.unwrap();
    assert_eq!(exit.status.code(), Some(0), "{}", child.stderr());
    assert!(child.stderr().contains("lame-duck"), "{}", child.stderr());
}
