//! Grafana's provisioning files: whether they can be read, and whether the data source knows how often Prometheus scrapes.
//!
//! Grafana takes four times that interval, at least, for `$__rate_interval`: with its default, 15 s, every rate would be a mean over a
//! minute; with less than two scrapes in the window, every panel would be empty.

use saphyr::{LoadableYamlNode as _, Yaml};

use super::{File, Finding};

/// What is wrong with Grafana's files, beside those of Prometheus.
pub(super) fn check(grafana: &[File], prometheus: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let scraped: Vec<(&File, String)> = prometheus
        .iter()
        .filter_map(|file| {
            let documents = Yaml::load_from_str(&file.text).ok()?;
            Some((file, shortest(documents.first()?)?))
        })
        .collect();
    let (mut sources, mut folders) = (0, 0);
    for file in grafana {
        let documents = match Yaml::load_from_str(&file.text) {
            Ok(documents) => documents,
            Err(error) => {
                findings.push(Finding::new(&file.path, format!("is not YAML: {error}")));
                continue;
            }
        };
        let list = |key: &str| {
            let of_document = |document: &Yaml<'_>| document.as_mapping_get(key)?.as_sequence().map(Vec::len);
            documents.first().and_then(of_document).unwrap_or(0)
        };
        sources += list("datasources");
        folders += list("providers");
        for source in documents
            .iter()
            .filter_map(|document| document.as_mapping_get("datasources")?.as_sequence())
            .flatten()
        {
            let told = source.as_mapping_get("jsonData").and_then(|data| data.as_mapping_get("timeInterval"));
            let told = told.and_then(|interval| interval.as_str()).unwrap_or("15s, by default");
            for (other, interval) in scraped.iter().filter(|(_, interval)| interval != told) {
                let what = format!(
                    "jsonData.timeInterval is {told}, but {} scrapes each {interval}: make them equal",
                    other.path
                );
                findings.push(Finding::new(&file.path, what));
            }
        }
    }
    if sources == 0 || folders == 0 {
        findings.push(Finding::new(
            "grafana/provisioning",
            "wants one data source and one provider of dashboards, at least",
        ));
    }
    findings
}

/// The shortest interval of a Prometheus configuration: the proxies' figures. Others (the host's) come more seldom, and their panels
/// have a step of their own.
fn shortest(document: &Yaml<'_>) -> Option<String> {
    let of = |node: &Yaml<'_>| node.as_mapping_get("scrape_interval")?.as_str().map(str::to_owned);
    let jobs = document.as_mapping_get("scrape_configs")?.as_sequence()?;
    let global = document.as_mapping_get("global").and_then(of);
    jobs.iter().filter_map(of).chain(global).min_by_key(|interval| seconds(interval))
}

/// `2s` → 2; what is not in seconds is long.
fn seconds(interval: &str) -> u64 {
    interval.strip_suffix('s').and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    fn found(interval: &str) -> Vec<String> {
        let grafana = [
            file("ds.yaml", &format!("datasources: [{{name: a, jsonData: {{timeInterval: {interval}}}}}]")),
            file("db.yaml", "providers: [{name: a}]"),
        ];
        let text = "global: {scrape_interval: 15s}\nscrape_configs: [{job_name: a}, {job_name: b, scrape_interval: 2s}]";
        let prometheus = [file("p.yml", text), file("rules.yml", "groups: []")];
        check(&grafana, &prometheus).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn intervals_agree() {
        assert_eq!(found("2s"), Vec::<String>::new());
        assert!(
            found("5s")[0].contains("timeInterval is 5s, but p.yml scrapes each 2s"),
            "{:?}",
            found("5s")
        );
    }

    #[test]
    fn files_that_are_none_or_missing_are_named() {
        assert!(check(&[file("x.yaml", "a: [")], &[])[0].to_string().contains("x.yaml: is not YAML"));
        assert!(check(&[], &[])[0].to_string().contains("wants one data source"));
    }
}
