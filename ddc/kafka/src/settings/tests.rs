use std::time::Duration;

use super::*;

fn source() -> Role {
    Role::Source(SourceSettings { group: "ddc-t".into(), max_record_bytes: 16 << 20, queue_bytes: 64 << 20 })
}

fn sink() -> Role {
    Role::Sink(SinkSettings {
        max_record_bytes: 16 << 20,
        queue_bytes: 64 << 20,
        linger: Duration::from_millis(5),
        transactional_id: None,
    })
}

fn settings() -> ClientSettings {
    ClientSettings::plaintext(["127.0.0.1:1"], "ddc-t")
}

fn with(properties: &[(&str, &str)]) -> ClientSettings {
    let mut settings = settings();
    settings.properties = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    settings
}

fn messages(settings: &ClientSettings, role: &Role) -> Vec<String> {
    settings.build(role).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_of_every_role_are_accepted_by_librdkafka() {
    for role in [source(), sink(), Role::Log, Role::Admin] {
        settings().try_out(&role).unwrap();
    }
}

#[test]
fn the_source_never_commits_or_jumps_by_itself() {
    let config = settings().build(&source()).unwrap();
    for (key, value) in [
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("fetch.queue.backoff.ms", "1"),
        ("allow.auto.create.topics", "false"),
        ("group.id", "ddc-t"),
    ] {
        assert_eq!(config.get(key), Some(value), "{key}");
    }
}

#[test]
fn the_sink_waits_for_ever_and_takes_the_largest_record() {
    let config = settings().build(&sink()).unwrap();
    assert_eq!(config.get("message.timeout.ms"), Some("0"));
    assert_eq!(config.get("enable.idempotence"), Some("true"));
    assert!(config.get("message.max.bytes").unwrap().parse::<u64>().unwrap() > 16 << 20);
    let small_queue = Role::Sink(SinkSettings {
        max_record_bytes: 64 << 20,
        queue_bytes: 1 << 20,
        linger: Duration::ZERO,
        transactional_id: None,
    });
    let config = settings().build(&small_queue).unwrap();
    let kbytes: u64 = config.get("queue.buffering.max.kbytes").unwrap().parse().unwrap();
    assert!(kbytes >= 2 * (64 << 10), "a record larger than the queue would wait for ever");
}

#[test]
fn extreme_sizes_stay_within_librdkafkas_limits() {
    for size in [0, 1, 1 << 30, u64::MAX >> 8] {
        let role =
            Role::Source(SourceSettings { group: "g".into(), max_record_bytes: size, queue_bytes: size });
        settings().build(&role).unwrap();
        let role = Role::Sink(SinkSettings {
            max_record_bytes: size,
            queue_bytes: size,
            linger: Duration::MAX,
            transactional_id: None,
        });
        settings().build(&role).unwrap();
    }
}

#[test]
fn a_property_wins_over_a_default_also_by_its_other_name() {
    let config =
        with(&[("queue.buffering.max.ms", "77"), ("compression.codec", "lz4")]).build(&sink()).unwrap();
    assert_eq!(config.get("linger.ms"), Some("77"));
    assert_eq!(config.get("compression.type"), Some("lz4"));
    assert_eq!(config.get("queue.buffering.max.ms"), None, "both names at once would win by chance");
    let native = config.create_native_config().unwrap();
    assert_eq!(native.get("queue.buffering.max.ms").unwrap(), "77");
}

#[test]
fn what_would_break_a_promise_is_refused_with_the_reason() {
    let cases: &[(Role, &str, &str)] = &[
        (source(), "enable.auto.commit", "only what was sent is committed"),
        (source(), "auto.commit.enable", "only what was sent is committed"),
        (source(), "auto.offset.reset", "start_at"),
        (source(), "partition.assignment.strategy", "cooperative-sticky"),
        (source(), "group.id", "`group`"),
        (sink(), "enable.idempotence", "lost, doubled or reordered"),
        (sink(), "acks", "lost, doubled or reordered"),
        (sink(), "request.required.acks", "lost, doubled or reordered"),
        (sink(), "delivery.timeout.ms", "waited for"),
        (sink(), "metadata.broker.list", "`brokers`"),
        (sink(), "sasl.password", "password_file"),
        (Role::Admin, "plugin.library.paths", "no foreign code"),
    ];
    for (role, key, reason) in cases {
        let found = messages(&with(&[(key, "x")]), role);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&format!("`{key}`")) && found[0].contains(reason), "{found:?}");
    }
}

#[test]
fn every_mistake_is_named_at_once() {
    let found = messages(
        &with(&[("lingr.ms", "5"), ("linger.ms", "soon"), ("retries", "1"), ("compression.type", "lzma")]),
        &sink(),
    );
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(
        found.contains(&"librdkafka has no property `lingr.ms`; did you mean `linger.ms`?".to_owned()),
        "{found:?}"
    );
    assert!(found.iter().any(|m| m.starts_with("property `linger.ms`: ")), "{found:?}");
    assert!(found.iter().any(|m| m.starts_with("property `retries` cannot be set: ")), "{found:?}");
    assert!(
        found.iter().any(|m| m.starts_with("property `compression.type`: ") && m.contains("lzma")),
        "{found:?}"
    );
}

#[test]
fn two_names_of_one_setting_are_refused() {
    let found = messages(&with(&[("linger.ms", "1"), ("queue.buffering.max.ms", "2")]), &sink());
    assert_eq!(
        found,
        ["properties `linger.ms` and `queue.buffering.max.ms` are two names of the same setting; keep one"]
    );
}

#[test]
fn a_readers_property_does_not_reach_the_admin_client() {
    let config =
        with(&[("session.timeout.ms", "9000"), ("socket.timeout.ms", "9000")]).build(&Role::Admin).unwrap();
    assert_eq!(config.get("session.timeout.ms"), None);
    assert_eq!(config.get("socket.timeout.ms"), Some("9000"));
    assert!(with(&[("sesion.timeout.ms", "1")]).build(&Role::Admin).is_err());
}

#[test]
fn sasl_and_tls_are_complete_or_refused() {
    let mut settings = settings();
    settings.protocol = SecurityProtocol::SaslSsl;
    assert!(messages(&settings, &sink())[0].starts_with("`security.sasl` is missing"));
    settings.sasl = Some(Sasl { mechanism: SaslMechanism::ScramSha512, username: None, password: None });
    let found = messages(&settings, &sink());
    assert_eq!(found.len(), 2, "{found:?}");
    settings.sasl = Some(Sasl {
        mechanism: SaslMechanism::ScramSha512,
        username: Some("u".into()),
        password: Some(Secret::new("p")),
    });
    settings.try_out(&sink()).unwrap();
    settings.tls.certificate_file = Some("cert.pem".into());
    assert!(messages(&settings, &sink())[0].contains("key_file"));
    settings.protocol = SecurityProtocol::Plaintext;
    let found = messages(&settings, &sink());
    assert!(found.len() == 2 && found.iter().all(|m| m.contains("has no effect")), "{found:?}");
}

#[test]
fn every_mechanism_is_known_to_librdkafka() {
    for mechanism in SaslMechanism::ALL {
        let mut settings = settings();
        settings.protocol = SecurityProtocol::SaslPlaintext;
        settings.sasl =
            Some(Sasl { mechanism, username: Some("u".into()), password: Some(Secret::new("p")) });
        settings.properties.insert("sasl.kerberos.keytab".into(), "/nonexistent".into());
        assert_eq!(mechanism.name().parse(), Ok(mechanism));
        settings.try_out(&source()).unwrap_or_else(|error| panic!("{mechanism:?}: {error}"));
    }
    let error = "SCRAM-SHA-1".parse::<SaslMechanism>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown SASL mechanism `SCRAM-SHA-1`; one of: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, GSSAPI, OAUTHBEARER"
    );
    assert_eq!("SASL_SSL".parse(), Ok(SecurityProtocol::SaslSsl));
}

#[test]
fn kerberos_needs_a_keytab_or_tickets_from_elsewhere() {
    let mut settings = settings();
    settings.protocol = SecurityProtocol::SaslPlaintext;
    settings.sasl = Some(Sasl { mechanism: SaslMechanism::Gssapi, username: None, password: None });
    assert!(messages(&settings, &source())[0].contains("sasl.kerberos.keytab"));
    settings.properties.insert("sasl.kerberos.min.time.before.relogin".into(), "0".into());
    settings.try_out(&source()).unwrap();
}

#[test]
fn an_unreadable_tls_file_is_found_without_a_connection() {
    let mut settings = settings();
    settings.protocol = SecurityProtocol::Ssl;
    settings.tls.ca_file = Some("/nonexistent/ca.pem".into());
    settings.build(&sink()).unwrap();
    let error = settings.try_out(&sink()).unwrap_err().to_string();
    assert!(error.contains("ca.location") || error.contains("ca.pem"), "{error}");
}

#[test]
fn no_secret_is_printed() {
    let mut settings = with(&[
        ("sasl.oauthbearer.client.secret", "hush-hush-1"),
        ("ssl.key.pem", "hush-hush-2"),
        ("linger.ms", "x"),
    ]);
    settings.protocol = SecurityProtocol::SaslSsl;
    settings.sasl = Some(Sasl {
        mechanism: SaslMechanism::Plain,
        username: Some("user-name".into()),
        password: Some(Secret::new("hush-hush-3")),
    });
    settings.tls.key_password = Some(Secret::new("hush-hush-4"));
    let error = settings.build(&sink()).unwrap_err();
    let try_out = {
        let mut settings = settings.clone();
        settings.properties.remove("linger.ms");
        format!("{:?}", settings.try_out(&sink()))
    };
    for text in [format!("{settings:?}"), format!("{error}"), format!("{error:?}"), try_out] {
        assert!(!text.contains("hush"), "{text}");
    }
    assert!(format!("{settings:?}").contains("user-name"));
}

#[test]
fn brokers_are_a_list() {
    let settings = ClientSettings::plaintext(["a:1,b:2"], "c");
    assert!(messages(&settings, &Role::Admin)[0].contains("is not one host:port"));
    let none = ClientSettings::plaintext(Vec::<String>::new(), "c");
    assert!(messages(&none, &Role::Admin).iter().any(|m| m.contains("`brokers` is missing")));
}

/// What the static binary answers: the key and the package that has it, once per setting, instead of librdkafka's words.
#[test]
fn what_only_the_other_package_can_do_names_it() {
    let binary = Capabilities::new(Linkage::Static, "ssl,sasl_plain,sasl_scram,sasl_oauthbearer");
    let refused = |settings: &ClientSettings| -> Vec<String> {
        settings.build_for(&source(), &binary).unwrap_err().iter().map(ToString::to_string).collect()
    };
    let mut kerberos = with(&[("sasl.kerberos.keytab", "/k"), ("ssl.providers", "default,legacy")]);
    kerberos.protocol = SecurityProtocol::SaslSsl;
    kerberos.sasl = Some(Sasl { mechanism: SaslMechanism::Gssapi, username: None, password: None });
    let found = refused(&kerberos);
    assert_eq!(found.len(), 3, "{found:?}");
    for (line, key) in found.iter().zip(["security.sasl.mechanism", "sasl.kerberos.keytab", "ssl.providers"])
    {
        assert!(line.starts_with(&format!("`{key}`: this ddc ")) && line.contains("`ddc-gssapi`"), "{line}");
    }
    kerberos.properties.clear();
    assert_eq!(refused(&kerberos).len(), 1, "a missing keytab is not asked for where it would be of no use");

    let mut scram = settings();
    scram.protocol = SecurityProtocol::Ssl;
    let config = scram.build_for(&sink(), &binary).unwrap();
    assert_eq!(config.get("ssl.ca.location"), Some("probe"), "the linked OpenSSL knows Debian's places only");
    scram.tls.ca_file = Some("/ca.pem".into());
    assert_eq!(scram.build_for(&sink(), &binary).unwrap().get("ssl.ca.location"), Some("/ca.pem"));
}
