//! The page, in a real browser: `page.mjs` says what is expected of it, line by line.

use crate::demo::Demo;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// A browser's start on a slow machine, and a dozen steps.
const BROWSER: Duration = Duration::from_secs(180);

/// Where npm keeps what is installed for everybody, if playwright-core is there.
fn modules() -> Option<PathBuf> {
    let named = std::env::var_os("CURTSY_NODE_MODULES").map(PathBuf::from);
    let root = || {
        let output = std::process::Command::new("npm")
            .args(["root", "-g"])
            .output()
            .ok()?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
    };
    let modules = named.or_else(root)?;
    modules.join("playwright-core").is_dir().then_some(modules)
}

#[tokio::test]
async fn the_page_follows_the_server_through_a_restart_and_a_drain() {
    let chromium = PathBuf::from("/usr/bin/chromium");
    let Some(modules) = modules().filter(|_| chromium.exists()) else {
        println!("SKIPPED: no /usr/bin/chromium with playwright-core");
        return;
    };
    let demo = Demo::start(&["--linger", "0s", "--deadline", "120s"]).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/admin/page.mjs");
    let browser = Command::new("node")
        .arg(script)
        .arg(modules)
        .arg(chromium)
        .arg(format!("http://{}", demo.admin))
        .arg(format!("http://{}", demo.main))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(BROWSER, browser)
        .await
        .expect("the browser took too long")
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{errors}\n{}",
        demo.child.stderr()
    );
    for step in [
        "loaded",
        "phone",
        "straggler",
        "keyboard",
        "restart",
        "successor",
        "drain",
        "stopped",
        "guarded",
    ] {
        assert!(
            said.lines().any(|line| line == step),
            "no {step}\n{said}\n{errors}"
        );
    }
}
