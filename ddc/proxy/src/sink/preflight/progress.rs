//! What a destination must allow so that progress is kept there, and records are written in transactions.
//!
//! Writes nothing. Transactions are tried with an id of their own, `ddc.<set>.<link>.check`: it has the prefix that the ACLs
//! are for and is nobody's, so it fences nobody (names have no dots). The brokers forget it after
//! `transactional.id.expiration.ms`, by default 7 days.

use std::time::{Duration, Instant};

use ddc_kafka::admin::Admin;
use ddc_kafka::context::{Reporter, ReportingContext};
use ddc_kafka::errors::{Kind, classify, code_of};
use ddc_kafka::operations::topic_operations;
use ddc_kafka::settings::{ClientSettings, Role};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::{Finding, LEAST, Severity, found};
use crate::sink::progress_topic::{self, Ensured, Found};

/// How the egress will use the destination.
#[derive(Debug, Clone)]
pub struct ProgressUse<'a> {
    /// The topic of the progress.
    pub topic: &'a str,
    /// Replicas it is created with; −1: the cluster's default.
    pub replication_factor: i32,
    /// The set of links.
    pub set: &'a str,
    /// The link.
    pub link: &'a str,
    /// Whether it writes in transactions.
    pub transactional: bool,
}

/// Looks at what `wanted` needs. `sink` is the role of the egress's producer.
pub fn look_at_progress(
    client: &ClientSettings,
    sink: &Role,
    wanted: &ProgressUse<'_>,
    deadline: Instant,
) -> Vec<Finding> {
    let reporter = Reporter::new(wanted.link, "check");
    let mut findings = look_at_topic(client, wanted, &reporter, deadline);
    if wanted.transactional {
        findings.push(try_transactions(client, sink, wanted, &reporter, deadline));
    }
    findings
}

fn problem(text: impl Into<String>) -> Finding {
    found(Severity::Problem, text)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(LEAST)
}

fn look_at_topic(
    client: &ClientSettings,
    wanted: &ProgressUse<'_>,
    reporter: &Reporter,
    deadline: Instant,
) -> Vec<Finding> {
    let topic = wanted.topic;
    let admin = client.build(&Role::Admin).map_err(|error| error.to_string());
    let admin =
        admin.and_then(|config| Admin::new(&config, reporter.clone()).map_err(|error| error.to_string()));
    let admin = match admin {
        Ok(admin) => admin,
        Err(error) => return vec![problem(error)],
    };
    let said = match progress_topic::look(&admin, topic, left(deadline)) {
        Found::There(Ensured::Ready(said)) => said,
        Found::There(Ensured::Unread(why)) => vec![why],
        Found::There(Ensured::Wait(why)) => return vec![problem(why)],
        Found::Missing => {
            return vec![match progress_topic::may_create(
                &admin,
                topic,
                wanted.replication_factor,
                left(deadline),
            ) {
                Ok(()) => {
                    found(Severity::Good, format!("topic {topic} does not exist yet and will be created"))
                }
                Err(why) => problem(why),
            }];
        }
    };
    let mut findings: Vec<_> = said.into_iter().map(|text| found(Severity::Warning, text)).collect();
    let client = admin.client() as std::sync::Arc<dyn ddc_kafka::NativeHandle>;
    let allowed = match topic_operations(&client, &[topic], left(deadline)) {
        Ok(mut answers) => answers.remove(topic),
        Err(error) => Some(Err(error)),
    };
    findings.push(match allowed {
        Some(Ok(allowed)) if allowed.read && allowed.write => {
            found(Severity::Good, format!("topic {topic} is there and may be read and written"))
        }
        Some(Ok(allowed)) => problem(format!(
            "topic {topic}: the cluster's ACLs allow this client {}; it needs Read and Write (docs/acls.md)",
            if allowed.describe { allowed.to_string() } else { "nothing".to_owned() }
        )),
        // Not every cluster answers that, and a slow one may not in time: the egress itself will say what it is refused.
        Some(Err(error)) if error.verdict().is_temporary() => {
            found(Severity::Warning, format!("what is allowed with topic {topic} is not known: {error}"))
        }
        Some(Err(error)) => problem(format!("topic {topic}: {error}; {}", error.verdict().advice)),
        None => {
            found(Severity::Warning, format!("the cluster does not say what is allowed with topic {topic}"))
        }
    });
    findings
}

fn try_transactions(
    client: &ClientSettings,
    sink: &Role,
    wanted: &ProgressUse<'_>,
    reporter: &Reporter,
    deadline: Instant,
) -> Finding {
    let mut config = match client.build(sink) {
        Ok(config) => config,
        Err(error) => return problem(error.to_string()),
    };
    let id = format!("ddc.{}.{}.check", wanted.set, wanted.link);
    config.set("transactional.id", &id);
    match init(&config, reporter, left(deadline)) {
        Ok(()) => found(Severity::Good, format!("transactions are allowed (tried with the id {id})")),
        Err(error) => problem(format!("delivery = \"exactly_once\": {}", why_not(&error, &id))),
    }
}

fn init(config: &ClientConfig, reporter: &Reporter, timeout: Duration) -> Result<(), KafkaError> {
    let producer: BaseProducer<ReportingContext> =
        config.create_with_context(ReportingContext(reporter.clone()))?;
    producer.init_transactions(timeout)
}

/// What stands in the way of transactions, and what to set.
fn why_not(error: &KafkaError, id: &str) -> String {
    const OTHERWISE: &str = "or set delivery = \"at_least_once\"";
    let verdict = classify(error);
    let code = code_of(error).or(match error {
        KafkaError::Transaction(error) => Some(error.code()),
        _ => None,
    });
    match code {
        Some(Code::TransactionalIdAuthorizationFailed) => format!(
            "the cluster's ACLs forbid the transactional id {id}; allow Write on transactional ids that begin with {} \
             (docs/acls.md), {OTHERWISE}",
            id.rsplitn(3, '.').last().map(|set| format!("{set}.")).unwrap_or_default()
        ),
        _ if verdict.kind == Kind::Temporary => format!(
            "no transaction coordinator answered ({error}); the brokers' own topic __transaction_state wants \
             transaction.state.log.replication.factor brokers (3, unless set): on a single one set it and \
             transaction.state.log.min.isr to 1, {OTHERWISE}"
        ),
        _ => format!("{error}; {}, {OTHERWISE}", verdict.advice),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;
    use ddc_kafka::settings::SinkSettings;
    use rdkafka::mocking::MockCluster;

    fn look(brokers: &str, patience: Duration) -> String {
        let role = Role::Sink(SinkSettings {
            max_record_bytes: 1 << 20,
            queue_bytes: 1 << 20,
            linger: Duration::ZERO,
            transactional_id: Some("ddc.plant.plant-a".to_owned()),
        });
        let wanted = ProgressUse {
            topic: "ddc-progress",
            replication_factor: -1,
            set: "plant",
            link: "plant-a",
            transactional: true,
        };
        let client = ClientSettings::plaintext([brokers], "t");
        let findings = look_at_progress(&client, &role, &wanted, Instant::now() + patience);
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn transactions_are_tried_with_an_id_of_their_own() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("ddc-progress", 1, 1).unwrap();
        let text = look(&mock.bootstrap_servers(), Duration::from_secs(5));
        assert!(
            text.contains("ok: transactions are allowed (tried with the id ddc.plant.plant-a.check)"),
            "{text}"
        );
    }

    #[test]
    fn a_coordinator_that_is_missing_names_the_setting() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("ddc-progress", 1, 1).unwrap();
        let gone = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE;
        mock.request_errors(rdkafka::types::RDKafkaApiKey::FindCoordinator, &[gone; 100]);
        let text = look(&mock.bootstrap_servers(), Duration::from_secs(2));
        assert!(
            text.contains("problem: ") && text.contains("transaction.state.log.replication.factor"),
            "{text}"
        );
    }

    #[test]
    fn what_the_brokers_refuse_is_named_with_what_to_set() {
        for (code, what) in [
            (
                rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                "transactional ids that begin with ddc.plant.",
            ),
            (
                rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT,
                "transaction.max.timeout.ms",
            ),
        ] {
            let mock = MockCluster::new(1).unwrap();
            mock.create_topic("ddc-progress", 1, 1).unwrap();
            mock.request_errors(rdkafka::types::RDKafkaApiKey::InitProducerId, &[code; 100]);
            let text = look(&mock.bootstrap_servers(), Duration::from_secs(5));
            assert!(text.contains(what) && text.contains("at_least_once"), "{what}: {text}");
        }
    }

    #[test]
    fn a_cluster_that_is_away_is_bounded() {
        let start = Instant::now();
        let text = look("127.0.0.1:1", Duration::from_secs(1));
        assert!(text.starts_with("problem: "), "{text}");
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    }
}
