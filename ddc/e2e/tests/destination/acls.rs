//! The commands of docs/acls.md, on a broker with an authorizer: enough, and each operation needed.
//!
//! For every operation of the document there is a principal that has all others. What DDC does with the clusters is
//! then done as each of them: the one that has all succeeds everywhere, each of the others fails in exactly the work
//! that the operation is for.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ddc_e2e::broker::Broker;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::wait::{timed, until};
use ddc_kafka::admin::{Admin, TopicSpec};
use ddc_kafka::context::Reporter;
use ddc_kafka::group::{GroupEvent, GroupMember};
use ddc_kafka::settings::{
    ClientSettings, Role, Sasl, SaslMechanism, Secret, SecurityProtocol, SinkSettings, SourceSettings,
};
use ddc_kafka::topic_log::TopicLog;
use ddc_proxy::sink::preflight::Severity;
use ddc_proxy::sink::preflight::progress::{ProgressUse, look_at_progress};
use ddc_proxy::sink::progress_topic::{self, Ensured};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset};

use crate::LIMIT;

const CALL: Duration = Duration::from_secs(10);
/// Long enough for a group to form; a member that is forbidden is told at once.
const JOIN: Duration = Duration::from_secs(30);
/// All who log in.
const PASSWORD: &str = "of-a-test";

/// One command of the document.
#[derive(Debug, Clone)]
struct Allow {
    /// Everything but principal and operations.
    resource: Vec<String>,
    principal: String,
    operations: Vec<String>,
}

/// The commands of the document, in order.
fn document() -> Vec<Allow> {
    let text = std::fs::read_to_string(ddc_e2e::repository().join("docs/acls.md")).unwrap();
    let commands: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("kafka-acls.sh ")).map(parse).collect();
    assert_eq!(commands.len(), 7, "the document has other commands than this test knows");
    commands
}

fn parse(line: &str) -> Allow {
    let mut allow = Allow { resource: vec![], principal: String::new(), operations: vec![] };
    let mut words = line.split_whitespace();
    while let Some(option) = words.next() {
        let mut value = || words.next().expect("an option has a value").to_owned();
        match option {
            "--bootstrap-server" => drop(value()),
            "--add" => {}
            "--allow-principal" => allow.principal = value(),
            "--operation" => allow.operations.push(value()),
            other => allow.resource.extend([other.to_owned(), value()]),
        }
    }
    allow
}

/// Who lacks `operation` of the command with this number, and has all else that its side has.
fn lacking(command: usize, operation: &str) -> String {
    format!("without-{command}-{}", operation.to_lowercase())
}

/// A broker that allows nothing but what is given, and everything to its plaintext listener.
fn broker(line: &str, users: &[String]) -> Broker {
    let users: Vec<_> = users.iter().map(|user| format!("user_{user}=\"{PASSWORD}\"")).collect();
    let users = users.join(" ");
    let login = format!(
        "listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
    );
    timed(&format!("a broker with an authorizer, Kafka {line}"), || {
        let broker = Broker::start_with(
            &format!("acls-{line}"),
            line,
            &[
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users=User:ANONYMOUS",
                &login,
            ],
        );
        broker.wait_ready();
        broker
    })
}

/// Kafka's own tool, with the command's words and these principals and operations.
fn allow(broker: &Broker, line: &str, allow: &Allow, principals: &[String], operations: &[String]) {
    let class = if line == "3" { "kafka.admin.AclCommand" } else { "org.apache.kafka.tools.AclCommand" };
    let mut command = Command::new(ddc_e2e::repository().join("deploy/kafka-dev/kafka.sh"));
    command.args(["tool", line, class, "--bootstrap-server", &broker.plaintext(), "--add"]);
    for principal in principals {
        command.args(["--allow-principal", principal]);
    }
    for operation in operations {
        command.args(["--operation", operation]);
    }
    let output = command.args(&allow.resource).stdin(Stdio::null()).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Adding ACLs"), "{allow:?}: {said}");
}

/// Gives every command to its own principal, and all but one operation to each that lacks one.
fn give(broker: &Broker, line: &str, commands: &[Allow]) {
    let as_user = |name: String| format!("User:{name}");
    for (number, command) in commands.iter().enumerate() {
        // The principal of the document, and those of its side that lack something of another command.
        let mut principals = vec![command.principal.clone()];
        for (other, theirs) in commands.iter().enumerate() {
            if other != number && theirs.principal == command.principal {
                principals.extend(theirs.operations.iter().map(|lacks| as_user(lacking(other, lacks))));
            }
        }
        allow(broker, line, command, &principals, &command.operations);
        for lacks in &command.operations {
            let rest: Vec<_> = command.operations.iter().filter(|has| *has != lacks).cloned().collect();
            if !rest.is_empty() {
                allow(broker, line, command, &[as_user(lacking(number, lacks))], &rest);
            }
        }
    }
}

/// A client that logs in.
fn client(broker: &Broker, user: &str) -> ClientSettings {
    let mut settings = ClientSettings::plaintext([broker.sasl_plaintext()], "e2e");
    settings.protocol = SecurityProtocol::SaslPlaintext;
    settings.sasl = Some(Sasl {
        mechanism: SaslMechanism::Plain,
        username: Some(user.to_owned()),
        password: Some(Secret::new(PASSWORD)),
    });
    settings
}

fn admin(settings: &ClientSettings) -> Admin {
    Admin::new(&settings.build(&Role::Admin).unwrap(), Reporter::new("e2e", "admin")).unwrap()
}

/// The first answer of each record.
#[derive(Clone, Default)]
struct Answers(std::sync::Arc<std::sync::Mutex<Option<String>>>);

impl ClientContext for Answers {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Answers {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap().get_or_insert_with(|| error.to_string());
        }
    }
}

fn sink() -> Role {
    Role::Sink(SinkSettings {
        max_record_bytes: 1 << 20,
        queue_bytes: 1 << 20,
        linger: Duration::ZERO,
        transactional_id: None,
    })
}

/// Writes a record to each topic; in a transaction with this id, or without.
fn write(settings: &ClientSettings, transactional_id: Option<&str>, topics: &[&str]) -> Result<(), String> {
    let mut config = settings.build(&sink()).unwrap();
    // What is refused shall say so in time.
    config.set("message.timeout.ms", "10000");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id).set("transaction.timeout.ms", "10000");
    }
    let answers = Answers::default();
    let producer: BaseProducer<Answers> = config.create_with_context(answers.clone()).unwrap();
    let text = |error: KafkaError| error.to_string();
    if transactional_id.is_some() {
        producer.init_transactions(CALL).map_err(text)?;
        producer.begin_transaction().map_err(text)?;
    }
    for topic in topics {
        let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).partition(0).key("k").payload("v");
        producer.send(record).map_err(|(error, _)| text(error))?;
    }
    let start = Instant::now();
    while producer.in_flight_count() > 0 {
        assert!(start.elapsed() < LIMIT, "a record is neither written nor refused");
        producer.poll(Duration::from_millis(1));
    }
    producer.poll(Duration::ZERO);
    if let Some(error) = answers.0.lock().unwrap().take() {
        return Err(error);
    }
    if transactional_id.is_some() { producer.commit_transaction(CALL).map_err(text) } else { Ok(()) }
}

/// Reads the progress to its end.
fn follow(settings: &ClientSettings) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut log = TopicLog::open(settings, "ddc-progress", Reporter::new("e2e", "progress")).unwrap();
    let start = Instant::now();
    loop {
        log.poll(Duration::from_millis(100), |_, _, _| {}).map_err(|error| text(&error))?;
        match log.high_watermark(CALL) {
            Ok(end) if log.position() >= end && log.topic_id().is_some() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(text(&error)),
        }
        assert!(start.elapsed() < LIMIT, "neither read nor refused");
    }
}

/// Joins the group, commits its start, reads a record, commits again.
fn consume(settings: &ClientSettings, topic: &str, group: &str) -> Result<(), String> {
    let role = Role::Source(SourceSettings {
        group: group.to_owned(),
        max_record_bytes: 1 << 20,
        queue_bytes: 1 << 20,
    });
    let mut config = settings.build(&role).unwrap();
    config.set("session.timeout.ms", "6000");
    let mut member = GroupMember::new(&config, Reporter::new("e2e", "source"), 100).unwrap();
    member.subscribe(&[topic]).unwrap();
    let start = Instant::now();
    while start.elapsed() < JOIN {
        while let Some(event) = member.serve() {
            match event {
                GroupEvent::Assigned(mut partitions) => {
                    partitions.set_all_offsets(Offset::Offset(0)).unwrap();
                    let committed =
                        member.commit_and_wait(&partitions, CALL).map_err(|error| error.to_string())?;
                    assert!(committed.is_complete(), "{committed:?}");
                    member.assign(&partitions).unwrap();
                }
                GroupEvent::Revoked { partitions, .. } => member.release(&partitions).unwrap(),
                GroupEvent::Failed(error) => {
                    let verdict = ddc_kafka::errors::classify(&error);
                    if verdict.kind == ddc_kafka::errors::Kind::Authorization {
                        return Err(format!("{}: {error}", verdict.reason));
                    }
                }
                _ => {}
            }
        }
        let batch = member.read(Duration::from_millis(20));
        if let Some(item) = batch.iter().next() {
            return item.map(drop).map_err(|error| error.to_string());
        }
    }
    Err("no record came".into())
}

/// The works of the two sides, and how each ended as this user.
type Works = BTreeMap<&'static str, Result<(), String>>;

/// What may be asked before the topics are there.
fn creations(settings: &ClientSettings) -> Works {
    let admin = admin(settings);
    let copy =
        TopicSpec { name: "copy.new".into(), partitions: 1, replication_factor: 1, config: BTreeMap::new() };
    let created = admin.may_create_topic(&copy, CALL).map(drop).map_err(|error| error.to_string());
    BTreeMap::from([
        ("create a destination topic", created),
        ("create the progress topic", progress_topic::may_create(&admin, "ddc-progress", 1, CALL)),
    ])
}

fn egress_works(settings: &ClientSettings, partitions: u32) -> Works {
    let admin = admin(settings);
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let settings_of = |topic: &str| admin.topic_settings(topic, CALL).map(drop).map_err(|error| text(&error));
    BTreeMap::from([
        (
            "write records and progress in a transaction",
            write(settings, Some("ddc.plant.plant-a"), &["copy.orders", "ddc-progress"]),
        ),
        ("fence another link of the set", write(settings, Some("ddc.plant.plant-b"), &[])),
        ("write records without transactions", write(settings, None, &["copy.orders"])),
        ("write progress without transactions", write(settings, None, &["ddc-progress"])),
        ("read the progress", follow(settings)),
        (
            "add partitions",
            admin.add_partitions("copy.orders", partitions, CALL).map_err(|error| text(&error)),
        ),
        ("see a destination topic's settings", settings_of("copy.orders")),
        ("see the progress topic's settings", settings_of("ddc-progress")),
        ("name what is missing", write(settings, None, &["ddc-missing-records"])),
        ("write a dead letter", write(settings, Some("ddc.plant.plant-a"), &["ddc-dead-letters"])),
    ])
}

/// What each operation of the egress is for: the works that fail without it.
fn needed(command: usize, operation: &str) -> &'static [&'static str] {
    match (command, operation) {
        (2, "Write") => {
            &["write records and progress in a transaction", "write records without transactions"]
        }
        (2, "Create") => &["create a destination topic"],
        (2, "Alter") => &["add partitions"],
        (2, "DescribeConfigs") => &["see a destination topic's settings"],
        (3, "Read") => &["read the progress"],
        (3, "Write") => {
            &["write progress without transactions", "write records and progress in a transaction"]
        }
        (3, "Create") => &["create the progress topic"],
        (3, "DescribeConfigs") => &["see the progress topic's settings"],
        (4, "Write") => &[
            "fence another link of the set",
            "write a dead letter",
            "write records and progress in a transaction",
        ],
        (5, "Write") => &["name what is missing"],
        (6, "Write") => &["write a dead letter"],
        other => panic!("the document has an operation that this test does not know: {other:?}"),
    }
}

fn failed(works: &Works) -> Vec<&'static str> {
    works.iter().filter(|(_, end)| end.is_err()).map(|(work, _)| *work).collect()
}

/// As `ddc check --connect` asks: whether it finds nothing wrong.
fn checks_well(settings: &ClientSettings, set: &str) -> Result<(), String> {
    let wanted = ProgressUse {
        topic: "ddc-progress",
        replication_factor: 1,
        set,
        link: "plant-a",
        transactional: true,
    };
    let findings = look_at_progress(settings, &sink(), &wanted, Instant::now() + CALL);
    let bad: Vec<_> = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Good)
        .map(ToString::to_string)
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(bad.join("\n")) }
}

fn enough_and_needed(line: &str) {
    let commands = document();
    let lackers =
        |command: usize| commands[command].operations.iter().map(move |lacks| (command, lacks.clone()));
    let everyone: Vec<String> = (0..commands.len())
        .flat_map(|command| lackers(command).map(|(command, lacks)| lacking(command, &lacks)))
        .chain(["ddc-ingress".to_owned(), "ddc-egress".to_owned()])
        .collect();
    let broker = broker(line, &everyone);
    timed("the commands of docs/acls.md", || give(&broker, line, &commands));
    let cluster = Cluster::new(&broker.plaintext());
    for topic in ["orders", "copy.orders", "ddc-missing-records", "ddc-dead-letters"] {
        cluster.create(topic, 1, &[]);
    }
    let anonymous = ClientSettings::plaintext([broker.plaintext()], "e2e");
    write(&anonymous, None, &["orders"]).unwrap();

    // The source side.
    let ingress = client(&broker, "ddc-ingress");
    consume(&ingress, "orders", "ddc-plant-a").unwrap();
    assert!(write(&ingress, None, &["orders"]).is_err(), "an ingress writes nothing");
    for (command, reason) in [(0, "TopicAuthorizationFailed"), (1, "group_forbidden")] {
        let user = lacking(command, "Read");
        let error = consume(&client(&broker, &user), "orders", "ddc-plant-a").unwrap_err();
        println!("          {user}: {error}");
        assert!(error.contains(reason) || error.contains("topic_forbidden"), "{error}");
    }

    // The destination side: what is created first, while it is not there.
    let egress = client(&broker, "ddc-egress");
    let before = |user: &str| creations(&client(&broker, user));
    assert_eq!(failed(&before("ddc-egress")), [""; 0], "{:?}", before("ddc-egress"));
    let mut outcomes: BTreeMap<(usize, String), Works> = (2..commands.len())
        .flat_map(lackers)
        .map(|(c, lacks)| ((c, lacks.clone()), before(&lacking(c, &lacks))))
        .collect();
    let ensured = progress_topic::ensure(&admin(&egress), "ddc-progress", 1, CALL);
    assert_eq!(ensured, Ensured::Ready(vec![]));
    until("the progress topic is shown", LIMIT, || checks_well(&egress, "plant"));
    let foreign = checks_well(&egress, "plant-2").unwrap_err();
    assert!(foreign.contains("transactional ids that begin with ddc.plant-2."), "{foreign}");

    let works = egress_works(&egress, 2);
    assert_eq!(failed(&works), [""; 0], "{works:?}");
    assert!(consume(&egress, "orders", "ddc-plant-a").is_err(), "an egress is in no group");
    for ((command, lacks), outcome) in &mut outcomes {
        let settings = client(&broker, &lacking(*command, lacks));
        // One that may not add partitions asks for one more than there are; the others have them added.
        let partitions = cluster.partitions("copy.orders").unwrap() + 1;
        outcome.extend(egress_works(&settings, partitions));
        assert_eq!(
            failed(outcome),
            needed(*command, lacks),
            "without {lacks} of command {command}: {outcome:?}"
        );
        if *command == 3 && lacks != "Create" || *command == 4 {
            let said = checks_well(&settings, "plant").unwrap_err();
            println!("          without {lacks} of command {command}: {said}");
            let named = if *command == 4 { "ddc.plant." } else { lacks.as_str() };
            assert!(said.contains(named) && said.contains("docs/acls.md"), "{said}");
        }
    }
}

#[test]
fn the_documented_acls_on_kafka_4() {
    enough_and_needed("4");
}

#[test]
fn the_documented_acls_on_kafka_3() {
    enough_and_needed("3");
}
