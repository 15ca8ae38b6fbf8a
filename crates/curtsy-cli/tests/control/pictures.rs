//! The pictures of README and docs: what is committed is still what the scripts make, and the commands in them still exist.

use std::process::Command;

#[test]
fn the_pictures_are_what_their_scripts_make() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/images/check.py");
    let checked = Command::new("python3")
        .args([script, env!("CARGO_BIN_EXE_curtsy")])
        .output();
    let Ok(checked) = checked else {
        println!("SKIPPED: no python3 to check the pictures");
        return;
    };
    let said = String::from_utf8_lossy(&checked.stdout);
    // What it skips, too.
    print!("{said}");
    let why = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}{why}");
    assert!(said.contains("5 checks passed"), "{said}");
}
