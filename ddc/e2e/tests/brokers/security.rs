//! All kinds of listener at both ends, and what is said when they refuse.

use ddc_e2e::broker::{Broker, Pair};
use ddc_e2e::produce::Producer;
use ddc_e2e::proxy::{Link, Settings};
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait::{timed, until_true};

use crate::{LIMIT, clusters};

/// Which kind of listener a side uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    SaslPlaintext,
    MutualTls,
    MutualTlsWithPassword,
    SaslSsl,
}

/// Sets the security of `table` (`source` or `sink`) for a listener of the broker.
fn secure(
    settings: &mut Settings,
    table: &str,
    broker: &Broker,
    kind: Kind,
    password: &str,
    key_password: &str,
) {
    let at = |key: &str| format!("{table}.kafka.{key}");
    let (protocol, address) = match kind {
        Kind::SaslPlaintext => ("sasl_plaintext", broker.sasl_plaintext()),
        Kind::MutualTls | Kind::MutualTlsWithPassword => ("ssl", broker.ssl()),
        Kind::SaslSsl => ("sasl_ssl", broker.sasl_ssl()),
    };
    settings.set(&at("brokers"), vec![toml_string(&address)]).set(&at("security.protocol"), protocol);
    if matches!(kind, Kind::SaslPlaintext | Kind::SaslSsl) {
        settings
            .set(&at("security.sasl.mechanism"), "SCRAM-SHA-512")
            .set(&at("security.sasl.username"), "ddc")
            .set(&at("security.sasl.password_file"), password);
    }
    if kind != Kind::SaslPlaintext {
        settings.set(&at("security.tls.ca_file"), broker.tls("ca.pem"));
    }
    match kind {
        Kind::MutualTls => {
            settings.set(&at("security.tls.key_file"), broker.tls("client.key"));
        }
        Kind::MutualTlsWithPassword => {
            settings
                .set(&at("security.tls.key_file"), broker.tls("client-encrypted.key"))
                .set(&at("security.tls.key_password_file"), key_password);
        }
        _ => return,
    }
    settings.set(&at("security.tls.certificate_file"), broker.tls("client.pem"));
}

fn toml_string(text: &str) -> ddc_e2e::proxy::TomlValue {
    text.into()
}

/// Carries a topic with one kind of listener at the source and another at the destination.
fn carries(pair: &Pair, name: &str, from: Kind, to: Kind) {
    let (source, destination) = clusters(pair);
    source.create(name, 2, &[]);
    Producer::new(source.brokers()).fill(name, 2, 0..400);
    let mut link = Link::new(name, source.brokers(), destination.brokers(), &[name]);
    let (password, key_password) =
        (link.secret("password", "ddc-secret\n"), link.secret("key-password", "ddc-key"));
    secure(&mut link.ingress, "source", &pair.source, from, &password, &key_password);
    secure(&mut link.egress, "sink", &pair.destination, to, &password, &key_password);
    let (_ingress, egress) = timed("both sides ready", || link.start());
    Crossing::new(&source, &destination, name).settle(LIMIT).assert_intact();
    assert_eq!(egress.named_missing(), []);
}

#[test]
fn sasl_plaintext_to_mutual_tls_on_kafka_4() {
    carries(Pair::kafka_4(), "scram-to-mtls", Kind::SaslPlaintext, Kind::MutualTls);
}

#[test]
fn mutual_tls_to_sasl_ssl_on_kafka_4() {
    carries(Pair::kafka_4(), "mtls-to-sasl-ssl", Kind::MutualTlsWithPassword, Kind::SaslSsl);
}

#[test]
fn sasl_ssl_to_sasl_plaintext_on_kafka_4() {
    carries(Pair::kafka_4(), "sasl-ssl-to-scram", Kind::SaslSsl, Kind::SaslPlaintext);
}

#[test]
fn sasl_ssl_to_mutual_tls_on_kafka_3() {
    carries(Pair::kafka_3(), "sasl-ssl-to-mtls", Kind::SaslSsl, Kind::MutualTls);
}

#[test]
fn sasl_plaintext_both_ends_on_kafka_3() {
    carries(Pair::kafka_3(), "scram-to-scram", Kind::SaslPlaintext, Kind::SaslPlaintext);
}

/// A wrong password is named at both ends, tried again, and works once it is right at the source's next start.
#[test]
fn a_wrong_password_is_named_and_tried_again() {
    let pair = Pair::kafka_4();
    let (source, destination) = clusters(pair);
    source.create("wrong-password", 1, &[]);
    Producer::new(source.brokers()).fill("wrong-password", 1, 0..50);
    let mut link = Link::new("wrong-password", source.brokers(), destination.brokers(), &["wrong-password"]);
    let (wrong, right) = (link.secret("wrong", "guess"), link.secret("right", "ddc-secret"));
    secure(&mut link.ingress, "source", &pair.source, Kind::SaslPlaintext, &wrong, "");
    secure(&mut link.egress, "sink", &pair.destination, Kind::SaslPlaintext, &wrong, "");
    let (mut ingress, mut egress) = (link.start_ingress(), link.start_egress());
    for (side, metric) in
        [(&ingress, "ddc_ingress_source_errors_total"), (&egress, "ddc_egress_sink_errors_total")]
    {
        println!("          {}", side.wait_unready(&["authentication", "password"]).trim());
        side.wait_logged(&["credentials", "password_file"]);
        let refused = || side.metric(metric, &["reason=\"authentication\""]);
        let before = refused();
        until_true(&format!("{metric}: it is tried again"), LIMIT, || refused() > before);
        for text in [side.log(), side.get("/status").unwrap().1, side.get("/readyz").unwrap().1] {
            assert!(!text.contains("guess"), "a password was printed: {text}");
        }
    }
    assert!(ingress.lives() && egress.lives());
    ingress.stop();
    egress.stop();
    secure(&mut link.ingress, "source", &pair.source, Kind::SaslPlaintext, &right, "");
    secure(&mut link.egress, "sink", &pair.destination, Kind::SaslPlaintext, &right, "");
    let _sides = link.start();
    Crossing::new(&source, &destination, "wrong-password").settle(LIMIT).assert_intact();
}

/// A certificate of another authority, an unknown authority of the broker: refused by the broker, refused by us.
#[test]
fn a_strangers_certificate_is_refused_and_named() {
    let pair = Pair::kafka_4();
    let (source, destination) = clusters(pair);
    source.create("stranger", 1, &[]);
    let mut link = Link::new("stranger", source.brokers(), destination.brokers(), &["stranger"]);
    let password = link.secret("password", "ddc-secret");
    secure(&mut link.ingress, "source", &pair.source, Kind::MutualTls, "", "");
    link.ingress
        .set("source.kafka.security.tls.certificate_file", pair.source.tls("stranger.pem"))
        .set("source.kafka.security.tls.key_file", pair.source.tls("stranger.key"));
    secure(&mut link.egress, "sink", &pair.destination, Kind::SaslSsl, &password, "");
    link.egress.set("sink.kafka.security.tls.ca_file", pair.source.tls("ca.pem"));
    let (mut ingress, mut egress) = (link.start_ingress(), link.start_egress());
    println!("          {}", ingress.wait_unready(&["certificate"]).trim());
    println!("          {}", egress.wait_unready(&["certificate"]).trim());
    assert!(ingress.lives() && egress.lives());
}

/// Kerberos and bearer tokens are passed through; a broker that serves neither refuses, and both sides live on.
#[test]
fn mechanisms_that_the_broker_refuses_are_named() {
    let pair = Pair::kafka_4();
    let (source, destination) = clusters(pair);
    source.create("mechanisms", 1, &[]);
    let mut link = Link::new("mechanisms", source.brokers(), destination.brokers(), &["mechanisms"]);
    secure(&mut link.ingress, "source", &pair.source, Kind::SaslPlaintext, "", "");
    secure(&mut link.egress, "sink", &pair.destination, Kind::SaslPlaintext, "", "");
    for (settings, table, mechanism) in
        [(&mut link.ingress, "source", "GSSAPI"), (&mut link.egress, "sink", "OAUTHBEARER")]
    {
        settings
            .remove(&format!("{table}.kafka.security.sasl.username"))
            .remove(&format!("{table}.kafka.security.sasl.password_file"))
            .set(&format!("{table}.kafka.security.sasl.mechanism"), mechanism);
    }
    link.ingress
        // No ticket is fetched: there is no Kerberos here.
        .property("source", "sasl.kerberos.min.time.before.relogin", 0);
    link.egress.property("sink", "enable.sasl.oauthbearer.unsecure.jwt", true).property(
        "sink",
        "sasl.oauthbearer.config",
        "principal=ddc",
    );
    let (mut ingress, mut egress) = (link.start_ingress(), link.start_egress());
    println!("          {}", ingress.wait_unready(&["sasl"]).trim());
    println!("          {}", egress.wait_unready(&["oauthbearer"]).trim());
    assert!(ingress.lives() && egress.lives());
}
