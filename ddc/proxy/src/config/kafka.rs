//! How a Kafka cluster is reached: typed security with its files read, librdkafka's own settings, secrets resolved.
//!
//! What a client may be told, and which settings DDC makes itself, is `ddc_kafka::settings`' business; here its
//! verdicts get file and line.

use ddc_kafka::binary::Need;
use ddc_kafka::settings::{self, ClientSettings, Role, Sasl, SettingsError, Tls};

use super::common::Checker;
use super::paths;
use super::raw::{
    RawKafkaClient, RawProperty, RawSasl, RawSecurity, RawTls, SaslMechanism, SecurityProtocol,
};
use super::secrets::{self, Secret};
use super::values::{Broker, FilePath, LinkName};

/// Settings that are secrets: they must come from a file or the environment.
const SECRET_SETTINGS: [&str; 5] = [
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.assertion.private.key.passphrase",
];

/// Checks the table `source.kafka`, `sink.kafka` or `missing_records` as far as it concerns the client; all mistakes are reported.
pub(crate) fn client(
    raw: RawKafkaClient,
    link: &LinkName,
    role: &Role,
    table: &'static [&'static str],
    checker: &mut Checker<'_>,
) -> ClientSettings {
    let place = Place { table };
    let brokers = raw.brokers.iter().map(Broker::as_str);
    let mut client = ClientSettings::plaintext(brokers, format!("ddc-{link}"));
    let RawSecurity { protocol, sasl, tls } = raw.security;
    client.protocol = protocol.into();
    place.must_match(checker, "sasl", sasl.is_some(), client.protocol.uses_sasl(), true, protocol);
    place.must_match(checker, "tls", tls.is_some(), client.protocol.uses_tls(), false, protocol);
    if let Some(sasl) = sasl {
        if sasl.mechanism == SaslMechanism::Plain && protocol == SecurityProtocol::SaslPlaintext {
            checker.notice(
                &[table, &["security", "protocol"]].concat(),
                "PLAIN over sasl_plaintext sends the password readable over the network; use sasl_ssl or SCRAM-SHA-512",
            );
        }
        client.sasl = Some(place.sasl(checker, sasl));
    }
    if let Some(tls) = tls {
        client.tls = place.tls(checker, tls);
    }
    for (name, value) in raw.properties {
        if let Some(value) = place.property(checker, &name, value) {
            client.properties.insert(name, value);
        }
    }
    place.judge(checker, &client, role);
    client
}

impl From<SecurityProtocol> for settings::SecurityProtocol {
    fn from(protocol: SecurityProtocol) -> Self {
        match protocol {
            SecurityProtocol::Plaintext => Self::Plaintext,
            SecurityProtocol::Ssl => Self::Ssl,
            SecurityProtocol::SaslPlaintext => Self::SaslPlaintext,
            SecurityProtocol::SaslSsl => Self::SaslSsl,
        }
    }
}

impl From<SaslMechanism> for settings::SaslMechanism {
    fn from(mechanism: SaslMechanism) -> Self {
        match mechanism {
            SaslMechanism::Plain => Self::Plain,
            SaslMechanism::ScramSha256 => Self::ScramSha256,
            SaslMechanism::ScramSha512 => Self::ScramSha512,
            SaslMechanism::Gssapi => Self::Gssapi,
            SaslMechanism::Oauthbearer => Self::OauthBearer,
        }
    }
}

/// The table that holds the client's keys, such as `sink.kafka`.
#[derive(Clone, Copy)]
struct Place {
    table: &'static [&'static str],
}

impl Place {
    fn problem(self, checker: &mut Checker<'_>, inner: &[&str], key: &str, why: &str) {
        let path: Vec<&str> = self.table.iter().chain(inner).copied().collect();
        let message = format!("`{key}` in [{}]: {why}", path.join("."));
        let path: Vec<&str> = path.iter().copied().chain([key]).collect();
        checker.problem(&path, message);
    }

    /// A security table must be there exactly when the protocol uses it (`needed`: it cannot be left out then).
    fn must_match(
        self,
        checker: &mut Checker<'_>,
        name: &str,
        is_there: bool,
        used: bool,
        needed: bool,
        protocol: SecurityProtocol,
    ) {
        let header = format!("[{}.security.{name}]", self.table.join("."));
        if is_there && !used {
            let better = match (name, protocol) {
                ("sasl", SecurityProtocol::Ssl) | ("tls", SecurityProtocol::SaslPlaintext) => "sasl_ssl",
                ("sasl", _) => "sasl_ssl\" or \"sasl_plaintext",
                _ => "ssl",
            };
            let why = format!(
                "\"{protocol}\" does not use {header}; write protocol = \"{better}\", or remove the table"
            );
            self.problem(checker, &["security"], "protocol", &why);
        } else if !is_there && used && needed {
            let why = format!("\"{protocol}\" needs {header} with mechanism, username and password_file");
            self.problem(checker, &["security"], "protocol", &why);
        }
    }

    fn sasl(self, checker: &mut Checker<'_>, raw: RawSasl) -> Sasl {
        let inner = ["security", "sasl"];
        let mechanism = raw.mechanism;
        let (file, variable) = (raw.password_file.as_ref(), raw.password_env.as_deref());
        if !settings::SaslMechanism::from(mechanism).uses_password() {
            let family =
                if mechanism == SaslMechanism::Gssapi { "sasl.kerberos.…" } else { "sasl.oauthbearer.…" };
            for (key, is_there) in [
                ("username", raw.username.is_some()),
                ("password_file", file.is_some()),
                ("password_env", variable.is_some()),
            ] {
                if is_there {
                    let why =
                        format!("{mechanism} does not use it; its settings are {family} in `properties`");
                    self.problem(checker, &inner, key, &why);
                }
            }
            return Sasl { mechanism: mechanism.into(), username: None, password: None };
        }
        let password = self.password(checker, &inner, "password", file, variable);
        let username = raw.username.filter(|name| !name.is_empty());
        if username.is_none() {
            let why = format!("{mechanism} needs it; for example username = \"ddc\"");
            self.problem(checker, &inner, "username", &why);
        }
        if file.is_none() && variable.is_none() {
            let why = format!(
                "{mechanism} needs it (or password_env); for example password_file = \"/etc/ddc/password\""
            );
            self.problem(checker, &inner, "password_file", &why);
        }
        Sasl {
            mechanism: mechanism.into(),
            username,
            password: password.map(|secret| settings::Secret::new(secret.expose())),
        }
    }

    fn tls(self, checker: &mut Checker<'_>, raw: RawTls) -> Tls {
        let inner = ["security", "tls"];
        let [ca_file, certificate_file, key_file] = [
            ("ca_file", raw.ca_file, false),
            ("certificate_file", raw.certificate_file, false),
            ("key_file", raw.key_file, true),
        ]
        .map(|(key, path, private)| {
            let written = path?;
            let look = if private { secrets::private_file } else { secrets::public_file };
            let seen = checker.locate(&written).and_then(|located| {
                look("file", &located)?;
                Ok(located.path)
            });
            // Also of a wrong one it is known that it is written.
            Some(seen.unwrap_or_else(|why| {
                self.problem(checker, &inner, key, &why);
                written.0
            }))
        });
        match (&certificate_file, &key_file) {
            (Some(_), None) => {
                self.problem(checker, &inner, "certificate_file", "needs `key_file` beside it");
            }
            (None, Some(_)) => {
                self.problem(checker, &inner, "key_file", "needs `certificate_file` beside it");
            }
            _ => {}
        }
        let (file, variable) = (raw.key_password_file.as_ref(), raw.key_password_env.as_deref());
        let key_password = self.password(checker, &inner, "key_password", file, variable);
        if !raw.verify_hostname {
            let path: Vec<&str> =
                self.table.iter().copied().chain(inner).chain(["verify_hostname"]).collect();
            checker.notice(
                &path,
                "verify_hostname = false: any host with a certificate of that authority is taken for a broker",
            );
        }
        Tls {
            ca_file,
            certificate_file,
            key_file,
            key_password: key_password.map(|secret| settings::Secret::new(secret.expose())),
            verify_hostname: raw.verify_hostname,
        }
    }

    fn password(
        self,
        checker: &mut Checker<'_>,
        inner: &[&str],
        key: &str,
        file: Option<&FilePath>,
        variable: Option<&str>,
    ) -> Option<Secret> {
        let (file_key, env_key) = (format!("{key}_file"), format!("{key}_env"));
        let result = match (file, variable) {
            (None, None) => return None,
            (Some(_), Some(_)) => Err((&env_key, format!("{file_key} is written too; keep one of them"))),
            (Some(path), None) => {
                let located = checker.locate(path);
                located.and_then(|located| secrets::password_file(&located)).map_err(|why| (&file_key, why))
            }
            (None, Some(name)) => {
                secrets::password_env(name, checker.environment).map_err(|why| (&env_key, why))
            }
        };
        result.map_err(|(key, why)| self.problem(checker, inner, key, &why)).ok()
    }

    /// A setting's value as text; secrets are read from where they are.
    fn property(self, checker: &mut Checker<'_>, name: &str, raw: RawProperty) -> Option<String> {
        let value = match raw {
            RawProperty::File { file } => {
                checker.locate(&file).and_then(|located| secrets::password_file(&located))
            }
            RawProperty::Env { env } => secrets::password_env(&env, checker.environment),
            _ if SECRET_SETTINGS.contains(&name) => {
                Err("is a secret; write { file = \"PATH\" } or { env = \"NAME\" }".to_owned())
            }
            RawProperty::Bool(value) => return Some(value.to_string()),
            RawProperty::Integer(value) => return Some(value.to_string()),
            RawProperty::Float(value) => return Some(value.to_string()),
            // Not a path by its type: only librdkafka knows which texts are.
            RawProperty::Text(value) if paths::is_credential(&value) => {
                checker.locate(&FilePath(value.into())).and_then(|located| {
                    secrets::private_file("file", &located)?;
                    Ok(Secret::new(located.path.to_string_lossy()))
                })
            }
            RawProperty::Text(value) => return Some(value),
        };
        value
            .map_err(|why| self.problem(checker, &["properties"], name, &why))
            .ok()
            .map(|secret| secret.expose().to_owned())
    }

    /// A setting needs what only another package of DDC has.
    fn lacking(self, checker: &mut Checker<'_>, client: &ClientSettings, key: &str, need: Need) {
        let why = format!("this ddc {}", need.advice());
        if client.properties.contains_key(key) {
            self.problem(checker, &["properties"], key, &why);
        } else {
            self.problem(checker, &["security", "sasl"], "mechanism", &why);
        }
    }

    /// Asks `ddc_kafka` and librdkafka about the settings; no client is made, nothing is opened.
    fn judge(self, checker: &mut Checker<'_>, client: &ClientSettings, role: &Role) {
        let Err(errors) = client.build(role) else { return };
        for error in errors.iter() {
            let key = match error {
                // Said above, in the words of the file.
                SettingsError::Missing { .. } | SettingsError::Unused { .. } => continue,
                SettingsError::Protected { key, .. }
                | SettingsError::UnknownProperty { key, .. }
                | SettingsError::InvalidValue { key, .. } => key.as_str(),
                SettingsError::Twice { second, .. } => second.as_str(),
                SettingsError::Lacking { key, need } => {
                    self.lacking(checker, client, key, *need);
                    continue;
                }
                _ => "brokers",
            };
            let inner: &[&str] = if client.properties.contains_key(key) { &["properties"] } else { &[] };
            let table = self.table.iter().chain(inner).copied();
            let path: Vec<&str> = table.clone().chain([key]).collect();
            let header = table.collect::<Vec<_>>().join(".");
            checker.problem(&path, format!("[{header}]: {error}"));
        }
    }
}
