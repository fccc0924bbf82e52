//! `ddc version`: what this binary is and what it was built with.

use rdkafka::ClientConfig;

use super::print;
use crate::exit::{Exit, Failure};

/// Print the version, the wire version and what Kafka's client library can do
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// librdkafka's features that matter to users: security and compression.
const FEATURES: [&str; 8] =
    ["ssl", "sasl_plain", "sasl_scram", "sasl_gssapi", "sasl_oauthbearer", "gzip", "lz4", "zstd"];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let built_in = built_in_features()?;
    let has = |feature: &str| built_in.split(',').any(|name| name.trim() == feature);
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let version = env!("CARGO_PKG_VERSION");
    let wire = ddc_wire::VERSION;
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    if arguments.json {
        let features: serde_json::Map<String, serde_json::Value> =
            FEATURES.iter().map(|name| ((*name).to_owned(), has(name).into())).collect();
        let object = serde_json::json!({
            "version": version,
            "wire_version": wire,
            "librdkafka": librdkafka,
            "target": target,
            "features": features,
        });
        return print(&format!("{object}\n"));
    }
    let list = |wanted: bool| {
        let names: Vec<&str> = FEATURES.into_iter().filter(|name| has(name) == wanted).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    print(&format!(
        "ddc {version} ({target})\nwire version {wire}\nlibrdkafka {librdkafka}\n  with:    {}\n  without: {}\n",
        list(true),
        list(false)
    ))
}

/// The comma-separated features that librdkafka was built with; no client is made.
fn built_in_features() -> Result<String, Failure> {
    ClientConfig::new().create_native_config().and_then(|config| config.get("builtin.features")).map_err(
        |error| Failure::new(Exit::Internal, format!("librdkafka does not tell its features: {error}")),
    )
}
