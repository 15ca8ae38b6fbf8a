//! Completions and man pages: those of all commands, and understood by what reads them.

use crate::server::{curtsy, run};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// The commands that `curtsy --help` lists.
async fn commands() -> BTreeSet<String> {
    let (code, help, _) = run(curtsy(&["--help"])).await;
    assert_eq!(code, Some(0));
    let list = help.split("Commands:\n").nth(1).unwrap();
    let list = list.split("\n\n").next().unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|line| !line.starts_with(' '));
    let mut names: BTreeSet<String> = names
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 15 && names.remove("help"), "{names:?}");
    names
}

#[tokio::test]
async fn every_command_has_a_man_page() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("man1");
    let (code, _, err) = run(curtsy(&["man", place.to_str().unwrap()])).await;
    assert_eq!(code, Some(0), "{err}");
    let pages: BTreeSet<String> = std::fs::read_dir(&place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected: BTreeSet<String> = commands().await;
    expected = expected
        .iter()
        .map(|name| format!("curtsy-{name}.1"))
        .collect();
    expected.insert("curtsy.1".to_owned());
    assert_eq!(pages, expected);
    let drain = std::fs::read_to_string(place.join("curtsy-drain.1")).unwrap();
    for part in [
        "curtsy\\-drain",
        "shut down in good order",
        "\\-\\-wait",
        "Exit codes",
    ] {
        assert!(drain.contains(part), "no {part} in\n{drain}");
    }
    for page in pages {
        let checked = Command::new("groff")
            .args(["-man", "-ww", "-z"])
            .arg(place.join(&page))
            .output();
        match checked {
            Ok(output) => {
                let warnings = String::from_utf8_lossy(&output.stderr);
                assert!(
                    output.status.success() && warnings.is_empty(),
                    "{page}: {warnings}"
                );
            }
            Err(_) => {
                println!("SKIPPED: no groff to read man pages with");
                break;
            }
        }
    }
    let (code, _, err) = run(curtsy(&["man", "/dev/null/man1"])).await;
    assert!(code == Some(1) && err.contains("/dev/null/man1"), "{err}");
}

#[tokio::test]
async fn every_shell_understands_its_completions() {
    let commands = commands().await;
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let (code, text, err) = run(curtsy(&["completions", shell])).await;
        assert_eq!(code, Some(0), "{err}");
        for name in &commands {
            assert!(text.contains(name.as_str()), "{shell} does not know {name}");
        }
        assert!(!text.contains("__become"), "{shell} is told what is hidden");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let checked = Command::new(shell).arg(check).arg(file.path()).output();
        match checked {
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
            Err(_) => println!("SKIPPED: no {shell}"),
        }
    }
    let (code, _, _) = run(curtsy(&["completions", "tcsh"])).await;
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn bash_completes_commands_and_values() {
    let (_, text, _) = run(curtsy(&["completions", "bash"])).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let complete = |words: &[&str]| {
        let script = r#"
            source "$1"; shift
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            COMPREPLY=()
            _curtsy curtsy "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}"
        "#;
        let output = Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(file.path())
            .args(words)
            .stderr(Stdio::null())
            .output();
        output
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(drains) = complete(&["curtsy", "dr"]) else {
        println!("SKIPPED: no bash");
        return;
    };
    assert_eq!(drains, "drain\n");
    let states = complete(&["curtsy", "connections", "--state", "up"]).unwrap();
    assert_eq!(states, "upgraded\n");
    let flags = complete(&["curtsy", "drain", "--w"]).unwrap();
    assert_eq!(flags, "--wait\n");
}
