//! The layers of the workspace: the table in `ARCHITECTURE.md` and what cargo says agree, and imports go downward only.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Finding, tree::Tree};

const FILE: &str = "ARCHITECTURE.md";

/// The strict client stands low so that others can test with it, and is itself tested against whole servers.
const TESTED_UPWARD: &str = "curtsy-prove";

/// A crate of the workspace and which others of the workspace it names.
#[derive(Debug)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) dependencies: Vec<Dependency>,
}

#[derive(Debug)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// Whether only tests, examples and benches see it.
    pub(super) only_tests: bool,
}

/// Asks cargo for the crates of the workspace at `root`.
pub(super) fn crates(root: &Path) -> Result<Vec<Crate>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    parse(&serde_json::from_slice(&output.stdout).context("cargo metadata")?)
}

fn parse(metadata: &Value) -> Result<Vec<Crate>> {
    let name = |value: &Value| {
        value["name"]
            .as_str()
            .map(str::to_owned)
            .context("cargo metadata: no name")
    };
    let list = |value: &Value| value.as_array().cloned().context("cargo metadata: no list");
    let mut crates = Vec::new();
    for package in list(&metadata["packages"])? {
        let mut dependencies = Vec::new();
        // Without a path it comes from a registry, and has no layer.
        for dependency in list(&package["dependencies"])?
            .iter()
            .filter(|dependency| dependency["path"].is_string())
        {
            dependencies.push(Dependency {
                name: name(dependency)?,
                only_tests: dependency["kind"] == "dev",
            });
        }
        crates.push(Crate {
            name: name(&package)?,
            dependencies,
        });
    }
    Ok(crates)
}

/// The table lists exactly the crates there are, and each depends only on lower ones.
pub(super) fn check(tree: &Tree, crates: &[Crate]) -> Vec<Finding> {
    let (layers, mut findings) = match tree.text(FILE) {
        Some(text) => table(text),
        None => (
            BTreeMap::new(),
            vec![Finding::new(
                FILE,
                0,
                "is not there; its table `## Layers` is the law",
            )],
        ),
    };
    for (name, row) in &layers {
        if !crates.iter().any(|known| known.name == *name) {
            findings.push(Finding::new(
                FILE,
                row.line,
                format!("`{name}` is no crate of the workspace"),
            ));
        }
    }
    for Crate { name, dependencies } in crates {
        let Some(upper) = layers.get(name) else {
            findings.push(Finding::new(
                FILE,
                0,
                format!("its table `## Layers` does not list `{name}`"),
            ));
            continue;
        };
        // A crate's tests may ask the crate itself for features.
        let allowed = |dependency: &&Dependency| {
            dependency.only_tests && (name == TESTED_UPWARD || dependency.name == *name)
        };
        for dependency in dependencies
            .iter()
            .filter(|dependency| !allowed(dependency))
        {
            if let Some(lower) = layers.get(&dependency.name)
                && lower.layer >= upper.layer
            {
                let what = format!(
                    "`{name}` (layer {}) depends on `{}` (layer {}); imports go downward only",
                    upper.layer, dependency.name, lower.layer
                );
                findings.push(Finding::new(FILE, upper.line, what));
            }
        }
    }
    findings
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    layer: u32,
    line: usize,
}

/// Reads the first table under `## Layers`; its columns are found by their headings, in any order.
fn table(text: &str) -> (BTreeMap<String, Row>, Vec<Finding>) {
    let section = text
        .lines()
        .enumerate()
        .skip_while(|(_, line)| line.trim() != "## Layers")
        .skip(1);
    let section = section.take_while(|(_, line)| !line.starts_with("## "));
    let mut rows = section
        .skip_while(|(_, line)| !line.starts_with('|'))
        .take_while(|(_, line)| line.starts_with('|'));
    let heading = rows.next().map(|(_, line)| cells(line)).unwrap_or_default();
    let column = |name: &str| {
        heading
            .iter()
            .position(|cell| cell.to_lowercase().starts_with(name))
    };
    let (Some(name_at), Some(layer_at)) = (column("crate"), column("layer")) else {
        let what = "has no table with the columns `crate` and `layer` under `## Layers`";
        return (BTreeMap::new(), vec![Finding::new(FILE, 0, what)]);
    };
    let (mut layers, mut findings) = (BTreeMap::new(), Vec::new());
    for (index, line) in rows.skip(1) {
        let (cells, line) = (cells(line), index + 1);
        let name = cells
            .get(name_at)
            .map(|cell| cell.trim_matches('`').to_owned())
            .unwrap_or_default();
        let Some(layer) = cells.get(layer_at).and_then(|cell| cell.parse().ok()) else {
            findings.push(Finding::new(
                FILE,
                line,
                format!("the layer of `{name}` is not a number"),
            ));
            continue;
        };
        if layers.insert(name.clone(), Row { layer, line }).is_some() {
            findings.push(Finding::new(
                FILE,
                line,
                format!("`{name}` is listed twice"),
            ));
        }
    }
    (layers, findings)
}

fn cells(line: &str) -> Vec<String> {
    line.trim()
        .trim_matches('|')
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tree::made_up::tree;
    use super::*;

    const TABLE: &str = "# A\n\n## Layers\n\nWords.\n\n| layer | crate | what |\n|---|---|---|\n| 2 | `top` | x |\n\
                         | 1 | `middle` | x |\n| 1 | `curtsy-prove` | x |\n| 0 | `bottom` | x |\n\n## Next\n";

    fn of(name: &str, dependencies: &[(&str, bool)]) -> Crate {
        let dependency = |&(name, only_tests): &(&str, bool)| Dependency {
            name: name.to_owned(),
            only_tests,
        };
        Crate {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    /// A workspace that agrees with [`TABLE`].
    fn good() -> Vec<Crate> {
        vec![
            of(
                "top",
                &[("middle", false), ("bottom", false), ("curtsy-prove", true)],
            ),
            of("middle", &[("bottom", false), ("middle", true)]),
            of("curtsy-prove", &[("top", true), ("middle", true)]),
            of("bottom", &[]),
        ]
    }

    fn whats(text: &str, crates: &[Crate]) -> Vec<String> {
        check(&tree(&[(FILE, text)]), crates)
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn a_workspace_that_agrees_passes() {
        assert!(whats(TABLE, &good()).is_empty());
    }

    #[test]
    fn an_import_upward_or_sideways_is_found() {
        let cases = [
            (
                ("bottom", "top", false),
                "`bottom` (layer 0) depends on `top` (layer 2)",
            ),
            (
                ("middle", "curtsy-prove", false),
                "`middle` (layer 1) depends on `curtsy-prove` (layer 1)",
            ),
            (
                ("middle", "curtsy-prove", true),
                "`middle` (layer 1) depends on `curtsy-prove` (layer 1)",
            ),
            (
                ("curtsy-prove", "top", false),
                "`curtsy-prove` (layer 1) depends on `top` (layer 2)",
            ),
        ];
        for ((from, to, only_tests), what) in cases {
            let mut crates = good();
            let importer = crates.iter_mut().find(|known| known.name == from).unwrap();
            importer.dependencies.push(Dependency {
                name: to.to_owned(),
                only_tests,
            });
            assert_eq!(
                whats(TABLE, &crates),
                [format!("{what}; imports go downward only")]
            );
        }
    }

    #[test]
    fn a_crate_that_is_not_listed_or_not_there_is_found() {
        let mut crates = good();
        crates.push(of("new", &[]));
        crates.retain(|known| known.name != "middle");
        assert_eq!(
            whats(TABLE, &crates),
            [
                "`middle` is no crate of the workspace",
                "its table `## Layers` does not list `new`"
            ]
        );
    }

    #[test]
    fn a_broken_table_is_found() {
        assert!(!check(&tree(&[]), &[]).is_empty(), "no file");
        assert!(
            !whats("# A\n## Layers\nnone\n## Next\n| layer | crate |\n", &[]).is_empty(),
            "no table"
        );
        let twice = TABLE.replace(
            "| 0 | `bottom` | x |",
            "| 0 | `bottom` | x |\n| 0 | `bottom` | x |",
        );
        assert_eq!(whats(&twice, &good()), ["`bottom` is listed twice"]);
        let word = TABLE.replace("| 0 | `bottom`", "| low | `bottom`");
        assert!(
            whats(&word, &good()).contains(&"the layer of `bottom` is not a number".to_owned())
        );
    }

    #[test]
    fn metadata_is_read() {
        let metadata = json!({"packages": [{"name": "top", "dependencies": [
            {"name": "middle", "kind": null, "path": "/x"}, {"name": "bottom", "kind": "dev", "path": "/y"},
            {"name": "serde", "kind": null}]}]});
        let crates = parse(&metadata).unwrap();
        let seen: Vec<_> = crates[0]
            .dependencies
            .iter()
            .map(|d| (d.name.as_str(), d.only_tests))
            .collect();
        assert_eq!(seen, [("middle", false), ("bottom", true)]);
        assert!(parse(&json!({})).is_err());
    }
}
