//! Typed client settings → a configuration librdkafka accepts, or every mistake named.
//!
//! Three layers, the later one wins: what DDC sets for the role ([`Role`]), what the operator wrote in typed keys
//! ([`ClientSettings`]), and the operator's `properties`. Some properties would break a promise of delivery or
//! have a typed key of their own; those are refused with the reason (module `rules`). Names and values are
//! checked by librdkafka itself, without a connection. No secret is ever printed.

mod identity;
mod mistakes;
mod roles;
mod rules;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaConfRes, RDKafkaType};

use crate::binary::{Capabilities, Linkage};

pub use identity::{Sasl, SaslMechanism, Secret, SecurityProtocol, Tls, UnknownChoice};
pub use mistakes::{SettingsError, SettingsErrors};
pub use roles::{Role, SinkSettings, SourceSettings};

/// How to reach one Kafka cluster and prove who we are. The same for every client of that cluster.
#[derive(Clone)]
pub struct ClientSettings {
    /// `host:port`, at least one.
    pub brokers: Vec<String>,
    /// Shown in the brokers' logs and quotas: `ddc-<link>`.
    pub client_id: String,
    /// Whether the connection is encrypted and authenticated.
    pub protocol: SecurityProtocol,
    /// Who we are, with the two `sasl_…` protocols.
    pub sasl: Option<Sasl>,
    /// Certificates, with the two `…ssl` protocols.
    pub tls: Tls,
    /// librdkafka settings as the operator wrote them; they win over DDC's defaults.
    pub properties: BTreeMap<String, String>,
}

impl ClientSettings {
    /// Settings for an unprotected cluster; the other fields are set as needed.
    pub fn plaintext(
        brokers: impl IntoIterator<Item = impl Into<String>>,
        client_id: impl Into<String>,
    ) -> Self {
        ClientSettings {
            brokers: brokers.into_iter().map(Into::into).collect(),
            client_id: client_id.into(),
            protocol: SecurityProtocol::Plaintext,
            sasl: None,
            tls: Tls::default(),
            properties: BTreeMap::new(),
        }
    }

    /// The configuration of a client in this role, or everything that is wrong with it. Names and values were
    /// accepted by librdkafka; nothing was opened.
    pub fn build(&self, role: &Role) -> Result<ClientConfig, SettingsErrors> {
        self.build_for(role, Capabilities::of_this_binary())
    }

    /// As for a binary that can do this and no more.
    fn build_for(&self, role: &Role, binary: &Capabilities) -> Result<ClientConfig, SettingsErrors> {
        let mut errors = Vec::new();
        let mut settings = role.defaults();
        self.typed(binary, &mut settings, &mut errors);
        self.merge_properties(role, binary, &mut settings, &mut errors);
        for (key, value) in &settings {
            check_with_librdkafka(key, value, &mut errors);
        }
        if !errors.is_empty() {
            return Err(SettingsErrors(errors));
        }
        let mut config = ClientConfig::new();
        config.set_log_level(if settings.contains_key("debug") {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Info
        });
        config.extend(settings);
        Ok(config)
    }

    /// Builds the configuration and a client from it that knows no broker: finds what only librdkafka's start
    /// finds (unreadable or mismatched TLS files, a wrong key password, settings that exclude each other).
    /// Opens the named files; no connection.
    pub fn try_out(&self, role: &Role) -> Result<(), SettingsErrors> {
        let mut config = self.build(role)?;
        config.remove("bootstrap.servers");
        if Capabilities::of_this_binary().has("sasl_gssapi") {
            // librdkafka would run kinit, which is no mere check.
            config.set("sasl.kerberos.min.time.before.relogin", "0");
        }
        let kind = match role {
            Role::Source(_) | Role::Replay(_) | Role::Log => RDKafkaType::RD_KAFKA_CONSUMER,
            Role::Sink(_) | Role::Admin => RDKafkaType::RD_KAFKA_PRODUCER,
        };
        config
            .create_native_config()
            .and_then(|native| Client::new(&config, native, kind, DefaultClientContext))
            .map(|_| ())
            .map_err(|error| SettingsErrors(vec![SettingsError::Refused { text: self.scrub(&error) }]))
    }

    /// The typed keys, in librdkafka's names.
    fn typed(
        &self,
        binary: &Capabilities,
        settings: &mut BTreeMap<String, String>,
        errors: &mut Vec<SettingsError>,
    ) {
        let mut set = |key: &str, value: &str| {
            settings.insert(key.to_owned(), value.to_owned());
        };
        if self.brokers.iter().all(|broker| broker.trim().is_empty()) {
            errors.push(SettingsError::Missing { key: "brokers", why: "at least one host:port is needed" });
        }
        for broker in &self.brokers {
            if broker.contains(',') || broker.chars().any(char::is_whitespace) {
                errors.push(SettingsError::InvalidBroker { broker: broker.clone() });
            }
        }
        set("bootstrap.servers", &self.brokers.join(","));
        set("client.id", &self.client_id);
        set("security.protocol", self.protocol.name());
        self.typed_sasl(binary, &mut set, errors);
        self.typed_tls(binary, &mut set, errors);
    }

    fn typed_sasl(
        &self,
        binary: &Capabilities,
        set: &mut impl FnMut(&str, &str),
        errors: &mut Vec<SettingsError>,
    ) {
        match (&self.sasl, self.protocol.uses_sasl()) {
            (None, false) => {}
            (None, true) => errors.push(SettingsError::Missing {
                key: "security.sasl",
                why: "a sasl_… protocol needs a mechanism and an identity",
            }),
            (Some(_), false) => errors.push(SettingsError::Unused {
                key: "security.sasl",
                why: "the protocol does not use SASL; set protocol = \"sasl_ssl\" (or \"sasl_plaintext\")",
            }),
            (Some(sasl), true) => {
                set("sasl.mechanisms", sasl.mechanism.name());
                let password_needed = sasl.mechanism.uses_password();
                let kerberos = ["sasl.kerberos.keytab", "sasl.kerberos.min.time.before.relogin"];
                if let Some(need) = binary.lacking_for_mechanism(sasl.mechanism.name()) {
                    errors.push(SettingsError::Lacking { key: "security.sasl.mechanism".into(), need });
                } else if sasl.mechanism == SaslMechanism::Gssapi
                    && !kerberos.iter().any(|key| self.properties.contains_key(*key))
                {
                    errors.push(SettingsError::Missing {
                        key: "properties.\"sasl.kerberos.keytab\"",
                        why: "GSSAPI needs a keytab, or \"sasl.kerberos.min.time.before.relogin\" = \"0\" when tickets come from elsewhere",
                    });
                }
                match &sasl.username {
                    Some(name) => set("sasl.username", name),
                    None if password_needed => errors.push(SettingsError::Missing {
                        key: "security.sasl.username",
                        why: "PLAIN and SCRAM need a user name",
                    }),
                    None => {}
                }
                match &sasl.password {
                    Some(password) => set("sasl.password", password.expose()),
                    None if password_needed => errors.push(SettingsError::Missing {
                        key: "security.sasl.password_file",
                        why: "PLAIN and SCRAM need a password",
                    }),
                    None => {}
                }
            }
        }
    }

    fn typed_tls(
        &self,
        binary: &Capabilities,
        set: &mut impl FnMut(&str, &str),
        errors: &mut Vec<SettingsError>,
    ) {
        let Tls { ca_file, certificate_file, key_file, key_password, verify_hostname } = &self.tls;
        if !self.protocol.uses_tls() {
            let any = ca_file.is_some() || certificate_file.is_some() || key_file.is_some();
            if any || key_password.is_some() {
                errors.push(SettingsError::Unused {
                    key: "security.tls",
                    why: "the protocol does not use TLS; set protocol = \"ssl\" (or \"sasl_ssl\")",
                });
            }
            return;
        }
        if certificate_file.is_some() != key_file.is_some() {
            errors.push(SettingsError::Missing {
                key: if key_file.is_some() {
                    "security.tls.certificate_file"
                } else {
                    "security.tls.key_file"
                },
                why: "a client certificate and its key go together",
            });
        }
        let mut file = |key: &str, path: &Option<PathBuf>| {
            if let Some(path) = path {
                set(key, &path_text(path));
            }
        };
        file("ssl.ca.location", ca_file);
        file("ssl.certificate.location", certificate_file);
        file("ssl.key.location", key_file);
        if ca_file.is_none() && binary.linkage == Linkage::Static {
            // The OpenSSL inside looks where Debian keeps its authorities; librdkafka knows the other systems' places.
            set("ssl.ca.location", "probe");
        }
        if let Some(password) = key_password {
            set("ssl.key.password", password.expose());
        }
        set("ssl.endpoint.identification.algorithm", if *verify_hostname { "https" } else { "none" });
    }

    /// Lays the operator's properties over the rest; a synonym replaces the name it stands for.
    fn merge_properties(
        &self,
        role: &Role,
        binary: &Capabilities,
        settings: &mut BTreeMap<String, String>,
        errors: &mut Vec<SettingsError>,
    ) {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in &self.properties {
            let name = rules::canonical(key);
            if let Some(reason) = rules::protected(role, name) {
                errors.push(SettingsError::Protected { key: key.clone(), reason });
                continue;
            }
            if let Some(first) = seen.insert(name, key) {
                errors.push(SettingsError::Twice { first: first.to_owned(), second: key.clone() });
                continue;
            }
            if let Some(need) = binary.lacking_for_property(name, value) {
                errors.push(SettingsError::Lacking { key: key.clone(), need });
                continue;
            }
            // A cluster's properties serve its reader and its admin client; librdkafka warns about each foreign one.
            if matches!(role, Role::Admin | Role::Log) && !rules::concerns_connection(name) {
                check_with_librdkafka(key, value, errors);
                continue;
            }
            // Checked under the name the operator wrote, so that the message names it.
            let before = errors.len();
            check_with_librdkafka(key, value, errors);
            if errors.len() == before {
                settings.insert(name.to_owned(), value.clone());
            }
        }
    }

    /// An error's text without any secret of these settings in it.
    fn scrub(&self, error: &KafkaError) -> String {
        let mut text = error.to_string();
        let secrets =
            [self.sasl.as_ref().and_then(|sasl| sasl.password.as_ref()), self.tls.key_password.as_ref()];
        let properties =
            self.properties.iter().filter(|(key, _)| rules::is_secret(key)).map(|(_, value)| value.as_str());
        for secret in secrets.into_iter().flatten().map(Secret::expose).chain(properties) {
            // A short one would be found everywhere, and its absence would tell it.
            if secret.len() >= 6 {
                text = text.replace(secret, "<secret>");
            }
        }
        text
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(key, value)| {
                (key.as_str(), if rules::is_secret(key) { "<secret>" } else { value.as_str() })
            })
            .collect();
        f.debug_struct("ClientSettings")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("protocol", &self.protocol)
            .field("sasl", &self.sasl)
            .field("tls", &self.tls)
            .field("properties", &properties)
            .finish()
    }
}

/// Sets one property on an empty configuration, to hear what librdkafka says about it.
fn check_with_librdkafka(key: &str, value: &str, errors: &mut Vec<SettingsError>) {
    let mut probe = ClientConfig::new();
    probe.set(key, value);
    let Err(error) = probe.create_native_config() else { return };
    errors.push(match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => {
            SettingsError::UnknownProperty { key: key.to_owned(), nearest: rules::nearest_property(key) }
        }
        // librdkafka quotes the value: not when it is a secret.
        KafkaError::ClientConfig(..) if rules::is_secret(key) => {
            SettingsError::InvalidValue { key: key.to_owned(), text: "librdkafka refuses this value".into() }
        }
        KafkaError::ClientConfig(_, text, ..) => SettingsError::InvalidValue { key: key.to_owned(), text },
        _ => SettingsError::InvalidValue { key: key.to_owned(), text: "contains a zero byte".into() },
    });
}

/// librdkafka takes paths as C strings; what is not UTF-8 it could not open anyway through rdkafka.
fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
