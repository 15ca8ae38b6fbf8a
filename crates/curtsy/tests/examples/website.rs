//! Examples whose documentation says it all: requests and their answers.

use crate::program::Program;

/// Starts it, does what it says, stops it.
fn documented(name: &'static str) {
    let program = Program::start(name);
    program.follow_its_documentation();
    program.stop();
}

#[test]
fn hello() {
    let program = Program::start("hello");
    program.follow_its_documentation();
    assert!(
        program
            .ask("GET /user/ada")
            .ends_with("\r\n\r\nHello, ada!")
    );
    program.stop();
}

#[test]
fn groups_middleware() {
    documented("groups_middleware");
}

#[test]
fn json_api() {
    documented("json_api");
}

#[test]
fn templates() {
    documented("templates");
}

#[test]
fn spa() {
    documented("spa");
}

#[test]
fn mount_axum() {
    documented("mount_axum");
}

#[test]
fn upload() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::with("upload", &[directory.path().to_str().unwrap()]);
    program.follow_its_documentation();
    program.stop();
    if std::process::Command::new("curl")
        .arg("--version")
        .output()
        .is_err()
    {
        return;
    }
    let files = std::fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["Cargo.toml", "lib.rs", "passwd"]);
    let uploaded = std::fs::read(directory.path().join("lib.rs")).unwrap();
    assert_eq!(uploaded, include_bytes!("../../src/lib.rs"));
}
