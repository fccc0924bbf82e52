//! What an operator sees and is told, through the whole chain: real proxies over a software diode that loses datagrams, StatsD
//! and syslog, the Vector pipeline, Prometheus with the rules that are shipped, Alertmanager, and the dashboards' queries.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails should panic")]

mod chain;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use chain::{Chain, LINK, SITE};
use ddc_e2e::netns::End;
use ddc_e2e::proxy::binary;
use ddc_e2e::wait::{self, timed};
use serde_json::Value;

/// What the issue of a cut link promises: from the cut to the firing alert.
const CUT_TO_ALERT: Duration = Duration::from_secs(15);
/// An alert whose cause has gone is over by then.
const OVER: Duration = Duration::from_mins(2);

#[test]
fn from_a_lossy_link_to_pictures_and_alarms() {
    let mut chain = timed("everything is up", Chain::start);
    timed("figures of both sides, those of the source through the diode", || figures_of_both_sides(&chain));
    timed("logs of the source, through the diode", || logs_of_the_source(&chain));
    timed("loss is noticed, nothing else", || loss_is_noticed(&chain));
    timed("every query of every dashboard", || every_panel_shows_something(&chain));
    timed("the cable is cut and mended", || a_cut_cable(&chain));
    timed("the egress dies and comes back", || a_dead_egress(&mut chain));
    timed("the ingress dies and comes back", || a_dead_ingress(&mut chain));
    chain.load.take().expect("it runs").stop();
}

fn figures_of_both_sides(chain: &Chain) {
    let delivered =
        format!("rate(ddc_egress_records_delivered_total{{site=\"{SITE}\",link=\"{LINK}\"}}[10s])");
    let sent =
        format!("rate(ddc_ingress_packets_sent_total{{site=\"{SITE}\",link=\"{LINK}\",via=\"diode\"}}[10s])");
    println!("          {:.0} records/s delivered", chain.wait_positive(&delivered));
    println!("          {:.0} datagrams/s sent, told through the diode", chain.wait_positive(&sent));
}

fn logs_of_the_source(chain: &Chain) {
    let line = wait::until("a line of the ingress", Duration::from_secs(20), || {
        let log = chain.vector.log();
        let found = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|event| event["via"] == "diode" && event["appname"] == "ddc-ingress");
        found.ok_or_else(|| format!("{} lines, none of them", log.lines().count()))
    });
    println!("          {line}");
}

/// One datagram in a hundred is lost and repaired: that is told, and that is all.
fn loss_is_noticed(chain: &Chain) {
    chain.wait_firing("PacketLoss", OVER);
    println!("          firing: {:?}", chain.firing());
    let wrong = [
        "LinkInterrupted",
        "EgressDown",
        "IngressStopped",
        "RecordsMissing",
        "TelemetrySilent",
        "VectorDown",
    ];
    let firing = chain.firing();
    assert!(!firing.iter().any(|name| wrong.contains(&name.as_str())), "{firing:?}");
}

/// `cargo xtask queries` prints what the panels ask; each must get an answer.
fn every_panel_shows_something(chain: &Chain) {
    let output = Command::new(binary().with_file_name("xtask"))
        .args(["queries", "--site", SITE, "--link", LINK])
        .output()
        .expect("cargo build --workspace --bins makes xtask");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let queries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(queries.len() > 50, "only {} queries", queries.len());
    let mut empty = BTreeMap::new();
    for query in &queries {
        let expression = query["expr"].as_str().unwrap();
        let found = chain.query(expression).unwrap_or_else(|error| panic!("{query}: {error}"));
        // Of the double's own metrics this one is missing; a real Vector has it.
        let only_real = std::env::var_os("VECTOR_BIN").is_none() && expression.contains("vector_utilization");
        if found.is_empty() && query["allowed_empty"] != true && !only_real {
            empty.insert(expression, format!("{} / {}", query["dashboard"], query["panel"]));
        }
    }
    println!("          {} queries", queries.len());
    assert!(empty.is_empty(), "panels without data: {empty:#?}");
}

fn a_cut_cable(chain: &Chain) {
    chain.diode.cut();
    let took = chain.wait_firing("LinkInterrupted", CUT_TO_ALERT);
    println!("          LinkInterrupted fires {:.1} s after the cut", took.as_secs_f64());
    chain.diode.mend();
    let over = chain.wait_over("LinkInterrupted", OVER);
    println!("          and is over {:.1} s after the mending", over.as_secs_f64());
    // What was sent meanwhile is gone, and that is told.
    chain.wait_firing("RecordsMissing", OVER);
}

fn a_dead_egress(chain: &mut Chain) {
    let egress = chain.egress.take().expect("it runs");
    chain.diode.at(End::Destination, || egress.kill());
    let took = chain.wait_firing("EgressDown", CUT_TO_ALERT);
    println!("          EgressDown fires {:.1} s after the kill", took.as_secs_f64());
    let egress = chain.diode.at(End::Destination, || {
        let egress = chain.link.start_egress();
        egress.wait_ready();
        egress
    });
    chain.egress = Some(egress);
    let over = chain.wait_over("EgressDown", OVER);
    println!("          and is over {:.1} s after the restart", over.as_secs_f64());
}

fn a_dead_ingress(chain: &mut Chain) {
    let ingress = chain.ingress.take().expect("it runs");
    chain.diode.at(End::Source, || ingress.kill());
    let took = chain.wait_firing("IngressStopped", OVER);
    println!("          IngressStopped fires {:.1} s after the kill", took.as_secs_f64());
    chain.ingress = Some(chain.diode.at(End::Source, || {
        let ingress = chain.link.start_ingress();
        ingress.wait_ready();
        ingress
    }));
    let over = chain.wait_over("IngressStopped", OVER);
    println!("          and is over {:.1} s after the restart", over.as_secs_f64());
}
