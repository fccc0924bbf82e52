//! Checks that hold dashboards, rules, pipelines and pages to the catalogue of metrics, both ways: nothing is used that does not
//! exist, nothing exists that no panel shows.
//!
//! Each check takes texts and gives [`Finding`]s, so its tests can give it broken texts. What the files must look like beyond our
//! names is checked elsewhere: grafana/check.py (Grafana's types), deploy/prometheus/check.sh (promtool), vector/verify.sh.

mod known;
mod lint;
mod places;
mod provisioning;
mod rules;
mod texts;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use known::Known;

/// One thing that is wrong: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// File, and place in it.
    place: String,
    what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A file of the repository and its text.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// From the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Everything that is wrong in the repository at `root`.
pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let rules = files(root, "deploy/prometheus/rules", &["yml"])?;
    let dashboards = files(root, "grafana/dashboards", &["json"])?;
    for (files, directory) in [(&rules, "deploy/prometheus/rules"), (&dashboards, "grafana/dashboards")] {
        if files.is_empty() {
            findings.push(Finding::new(directory, "no files there: nothing could be checked"));
        }
    }
    let rules = rules::read(&rules, &mut findings);
    let vrl = |name: &str| std::fs::read_to_string(root.join("vector/vrl").join(name)).unwrap_or_default();
    let known = Known::new(&rules, &vrl("vector_self.vrl"));

    findings.extend(rules::check(&rules, &known));
    findings.extend(lint::check(&dashboards, &known));
    findings.extend(lint::every_metric_is_shown(&dashboards));
    findings.extend(runbooks(root, &dashboards));
    findings.extend(provisioning::check(
        &files(root, "grafana/provisioning", &["yaml"])?,
        &files(root, "deploy/prometheus", &["yml"])?,
    ));
    findings.extend(texts::labels_pass("vector/vrl/metrics.vrl", &vrl("metrics.vrl")));
    for (directory, endings) in TEXTS {
        findings.extend(texts::check(&files(root, directory, endings)?, &known));
    }
    Ok(findings)
}

/// Where metrics are named in texts, and in files of which endings. Directories are walked down.
const TEXTS: [(&str, &[&str]); 6] = [
    ("README.md", &["md"]),
    ("docs", &["md"]),
    ("grafana", &["md"]),
    ("deploy", &["md"]),
    ("vector", &["md", "yaml", "vrl"]),
    ("scripts", &["sh"]),
];

/// Directories that hold no text of ours.
const PASSED_OVER: [&str; 3] = ["target", "double", "node_modules"];

/// All files below `directory` (or itself) with one of these endings, in order.
fn files(root: &Path, directory: &str, endings: &[&str]) -> anyhow::Result<Vec<File>> {
    let mut paths = BTreeSet::new();
    let mut open = vec![PathBuf::from(directory)];
    // Ends: a directory tree is finite, and symbolic links are not followed.
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        let Ok(kind) = full.symlink_metadata() else { continue };
        if kind.is_dir() {
            for entry in full.read_dir().with_context(|| format!("cannot read {}", path.display()))? {
                let name = entry?.file_name();
                if !PASSED_OVER.iter().any(|passed| name == *passed) {
                    open.push(path.join(name));
                }
            }
        } else if path.extension().is_some_and(|ending| endings.iter().any(|e| ending == *e)) {
            paths.insert(path);
        }
    }
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(root.join(&path))
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(File { path: path.display().to_string(), text })
        })
        .collect()
}

/// Runbooks that panels link must exist.
fn runbooks(root: &Path, dashboards: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in dashboards {
        for link in lint::runbook_links(&file.text) {
            if !root.join(&link).is_file() {
                findings.push(Finding::new(
                    &file.path,
                    format!("links {link}, which does not exist: write it, or take the link away"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runbook_that_is_not_there_is_named() {
        let text = r#"{"panels":[{"title":"a","links":[{"url":"${docs}docs/runbooks/Nonsense.md"}]}]}"#;
        let file = File { path: "x.json".into(), text: text.into() };
        let found = runbooks(&crate::root(), &[file]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].to_string().contains("docs/runbooks/Nonsense.md"), "{found:?}");
    }

    #[test]
    fn files_are_found_in_order_and_by_ending() {
        let found = files(&crate::root(), "ddc/xtask", &["rs"]).unwrap();
        let paths: Vec<_> = found.iter().map(|file| file.path.as_str()).collect();
        assert!(paths.contains(&"ddc/xtask/src/checks/mod.rs"), "{paths:?}");
        assert!(paths.is_sorted() && !paths.iter().any(|path| path.contains(".toml")), "{paths:?}");
        assert!(files(&crate::root(), "nowhere", &["rs"]).unwrap().is_empty());
    }
}
