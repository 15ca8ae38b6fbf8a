//! Decisions are numbered once and say what was at stake, what was chosen and what came of it.

use std::collections::BTreeMap;

use super::{
    Finding,
    tree::{Tree, name_of},
};

const DIRECTORY: &str = "docs/decisions/";

/// Every file in [`DIRECTORY`] is `NNNN-title.md`, its number is its own, and its sections are there.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut numbers: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, text) in tree
        .texts()
        .filter(|(path, _)| path.starts_with(DIRECTORY) && name_of(path) != "README.md")
    {
        match number(name_of(path)) {
            None => findings.push(Finding::new(path, 0, "is not named NNNN-title.md")),
            Some(number) => {
                if let Some(first) = numbers.insert(number, path) {
                    findings.push(Finding::new(path, 0, format!("has the number of {first}")));
                }
            }
        }
        for choices in [&["Context"][..], &["Choice"], &["Measured", "Consequences"]] {
            if !choices.iter().any(|section| has_section(text, section)) {
                findings.push(Finding::new(
                    path,
                    0,
                    format!("lacks a section `## {}`", choices.join("` or `## ")),
                ));
            }
        }
    }
    findings
}

/// The four digits in front of `-title.md`.
fn number(name: &str) -> Option<&str> {
    let (number, title) = name.split_once('-')?;
    let well_formed = number.len() == 4
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && title
            .strip_suffix(".md")
            .is_some_and(|title| !title.is_empty());
    well_formed.then_some(number)
}

fn has_section(text: &str, section: &str) -> bool {
    let heading = |line: &str| line.trim_start_matches('#').trim().to_owned();
    text.lines()
        .any(|line| line.starts_with('#') && heading(line).starts_with(section))
}

#[cfg(test)]
mod tests {
    use super::super::tree::made_up::tree;
    use super::*;

    const WHOLE: &str = "# T\n## Context\n## Choice\n## Measured\n";

    fn whats(files: &[(&str, &str)]) -> Vec<String> {
        check(&tree(files))
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn whole_decisions_pass() {
        let other = WHOLE.replace("Measured", "Consequences");
        let files = [
            ("docs/decisions/0001-a.md", WHOLE),
            ("docs/decisions/0002-b.md", &other),
            ("docs/x.md", ""),
        ];
        assert!(whats(&files).is_empty());
    }

    #[test]
    fn a_number_used_twice_is_found() {
        let found = whats(&[
            ("docs/decisions/0001-a.md", WHOLE),
            ("docs/decisions/0001-b.md", WHOLE),
        ]);
        assert_eq!(found, ["has the number of docs/decisions/0001-a.md"]);
    }

    #[test]
    fn a_wrong_name_is_found() {
        for name in ["1-a.md", "0001_a.md", "0001-.md", "0001-a.txt", "abcd-a.md"] {
            let path = format!("{DIRECTORY}{name}");
            assert_eq!(
                whats(&[(&path, WHOLE)]),
                ["is not named NNNN-title.md"],
                "{name}"
            );
        }
    }

    #[test]
    fn a_missing_section_is_found() {
        let found = whats(&[("docs/decisions/0001-a.md", "# T\nContext\n## Choice\n")]);
        assert_eq!(
            found,
            [
                "lacks a section `## Context`",
                "lacks a section `## Measured` or `## Consequences`"
            ]
        );
    }
}
