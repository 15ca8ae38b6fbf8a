//! Relative links in Markdown lead somewhere: inline links, reference definitions, and `src`/`href` of HTML in it.
//!
//! Texts under `src/` are left out: rustdoc includes them, and resolves their links as paths of items. Fragments and
//! addresses on the web are not followed.

use super::{Finding, tree::Tree};

/// Every relative link in a tracked Markdown file leads to a tracked file or directory.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree
        .texts_of("md")
        .filter(|(path, _)| !path.split('/').any(|part| part == "src"))
    {
        let mut fence: Option<&str> = None;
        for (index, line) in text.lines().enumerate() {
            let start = line.trim_start();
            match fence {
                Some(mark) if start.starts_with(mark) => fence = None,
                Some(_) => {}
                None if start.starts_with("```") => fence = Some("```"),
                None if start.starts_with("~~~") => fence = Some("~~~"),
                None => {
                    let dead = targets(line)
                        .into_iter()
                        .filter(|target| !leads_somewhere(tree, path, target));
                    findings.extend(dead.map(|target| {
                        Finding::new(path, index + 1, format!("dead link `{target}`"))
                    }));
                }
            }
        }
    }
    findings
}

/// What a line of Markdown links to.
fn targets(line: &str) -> Vec<String> {
    let line = without_code(line);
    let mut targets = Vec::new();
    for (start, _) in line.match_indices("](") {
        let rest = &line[start + 2..];
        let end = closing(rest).unwrap_or(rest.len());
        targets.push(rest[..end].to_owned());
    }
    if line.trim_start().starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        targets.push(target.to_owned());
    }
    for attribute in ["src=\"", "srcset=\"", "href=\""] {
        for (start, _) in line.match_indices(attribute) {
            let rest = &line[start + attribute.len()..];
            targets.push(rest[..rest.find('"').unwrap_or(rest.len())].to_owned());
        }
    }
    let bare = |target: String| {
        let target = target.trim();
        match target
            .strip_prefix('<')
            .and_then(|target| target.split_once('>'))
        {
            Some((target, _)) => target.to_owned(),
            // What follows a space is the link's title.
            None => target
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    };
    targets.into_iter().map(bare).collect()
}

/// The line with its inline code blanked out.
fn without_code(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').collect();
    // An odd tick at the end opens nothing.
    let last_is_open = parts.len().is_multiple_of(2);
    let text_or_blank = |(index, part): (usize, &&str)| {
        let code = index % 2 == 1 && !(last_is_open && index + 1 == parts.len());
        if code {
            "x".to_owned()
        } else {
            (*part).to_owned()
        }
    };
    parts
        .iter()
        .enumerate()
        .map(text_or_blank)
        .collect::<Vec<_>>()
        .join("`")
}

/// Where the parenthesis that encloses `rest` closes.
fn closing(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(at),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn leads_somewhere(tree: &Tree, from: &str, target: &str) -> bool {
    let elsewhere =
        target.contains("://") || target.starts_with("mailto:") || target.starts_with('#');
    if elsewhere || target.is_empty() {
        return true;
    }
    let path = target.split(['#', '?']).next().unwrap_or_default();
    let mut parts: Vec<&str> = match path.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from
            .rsplit_once('/')
            .map_or_else(Vec::new, |(directory, _)| directory.split('/').collect()),
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return false,
            ".." => {}
            part => parts.push(part),
        }
    }
    tree.has(&parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::tree::made_up::tree;
    use super::*;

    fn dead(text: &str) -> usize {
        check(&tree(&[
            ("docs/a.md", text),
            ("docs/b.md", ""),
            ("crates/x/src/lib.rs", ""),
            ("README.md", ""),
        ]))
        .len()
    }

    #[test]
    fn dead_links_are_found() {
        for text in [
            "[b](c.md)",
            "![b](../b.svg \"title\")",
            "[b]: ./c.md",
            "<img alt=\"\" src=\"b.svg\">",
            "[up](../../README.md)",
            "`code` [b](c.md) `more`",
            "an odd ` tick [b](c.md)",
            "[b](<c d.md>)",
        ] {
            assert_eq!(dead(text), 1, "{text}");
        }
    }

    #[test]
    fn living_links_and_code_are_not() {
        for text in [
            "[b](b.md#part) [r](../README.md) [x](../crates/x) [root](/docs/b.md) [here](#a)",
            "[w](https://example.org/x) [m](mailto:a@example.org)",
            "`[b](c.md)`",
            "```\n[b](c.md)\n```",
            "[b](b.md \"a title\")",
        ] {
            assert_eq!(dead(text), 0, "{text}");
        }
    }

    #[test]
    fn what_rustdoc_includes_is_left_to_rustdoc() {
        assert!(
            check(&tree(&[(
                "crates/x/src/docs/a.md",
                "[Server](crate::Server)"
            )]))
            .is_empty()
        );
    }
}
