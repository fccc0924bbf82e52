//! `ddc version`: what this binary is and what it was built with.

use ddc_kafka::binary::{self, Capabilities, Linkage};

use super::print;
use crate::exit::Failure;

/// Print the version, the wire version, how it was linked and what Kafka's client library can do
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// librdkafka's features that matter to users: security and compression.
const FEATURES: [&str; 9] =
    ["ssl", "sasl_plain", "sasl_scram", "sasl_gssapi", "sasl_oauthbearer", "oidc", "gzip", "lz4", "zstd"];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let this = Capabilities::of_this_binary();
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let version = env!("CARGO_PKG_VERSION");
    let wire = ddc_wire::VERSION;
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let linkage = this.linkage.name();
    let (openssl, glibc) = (binary::openssl_version(), binary::glibc_version());
    if arguments.json {
        let features: serde_json::Map<String, serde_json::Value> =
            FEATURES.iter().map(|name| ((*name).to_owned(), this.has(name).into())).collect();
        let object = serde_json::json!({
            "version": version,
            "wire_version": wire,
            "librdkafka": librdkafka,
            "target": target,
            "linkage": linkage,
            "openssl": openssl,
            "glibc": glibc,
            "features": features,
        });
        return print(&format!("{object}\n"));
    }
    let list = |wanted: bool| {
        let names: Vec<&str> = FEATURES.into_iter().filter(|name| this.has(name) == wanted).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let whose = match this.linkage {
        Linkage::Static => "linked in",
        Linkage::Dynamic => "this system's",
    };
    print(&format!(
        "ddc {version} ({target}, {linkage})\nwire version {wire}\nlibrdkafka {librdkafka}\n  with:    {}\n  \
         without: {}\n{openssl} and glibc {glibc}, {whose}\n",
        list(true),
        list(false)
    ))
}
