//! How a connection is protected, and who we are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `security.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// TLS; with a client certificate also authenticated (mTLS).
    Ssl,
    /// SASL without encryption.
    SaslPlaintext,
    /// SASL inside TLS.
    SaslSsl,
}

/// How SASL proves the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// User name and password in clear; use inside TLS.
    Plain,
    /// Salted challenge and response, SHA-256.
    ScramSha256,
    /// Salted challenge and response, SHA-512.
    ScramSha512,
    /// Kerberos; principal and keytab come as `sasl.kerberos.…` properties. Without a keytab librdkafka's kinit command
    /// must be switched off: `"sasl.kerberos.min.time.before.relogin" = "0"`.
    Gssapi,
    /// Bearer tokens, set up by `sasl.oauthbearer.…` properties.
    OauthBearer,
}

/// SASL identity.
#[derive(Clone, Debug)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: SaslMechanism,
    /// Needed by PLAIN and SCRAM.
    pub username: Option<String>,
    /// Needed by PLAIN and SCRAM; read from its file by the caller.
    pub password: Option<Secret>,
}

/// TLS files, all PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authorities to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate (mTLS), with its key.
    pub certificate_file: Option<PathBuf>,
    /// The key of `certificate_file`.
    pub key_file: Option<PathBuf>,
    /// The password of `key_file`.
    pub key_password: Option<Secret>,
    /// Whether the broker's certificate must carry the name we connect to.
    pub verify_hostname: bool,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            ca_file: None,
            certificate_file: None,
            key_file: None,
            key_password: None,
            verify_hostname: true,
        }
    }
}

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret the caller has read.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl SecurityProtocol {
    pub(super) const ALL: [SecurityProtocol; 4] =
        [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    /// The name in configuration files and in librdkafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether a SASL identity is needed.
    pub fn uses_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether the connection is TLS.
    pub fn uses_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

impl FromStr for SecurityProtocol {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownChoice::new("security protocol", text, Self::ALL.map(Self::name).to_vec()))
    }
}

impl SaslMechanism {
    pub(super) const ALL: [SaslMechanism; 5] =
        [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::Gssapi, Self::OauthBearer];

    /// The registered name, as in configuration files and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::Gssapi => "GSSAPI",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }

    /// Whether user name and password are needed.
    pub fn uses_password(self) -> bool {
        matches!(self, Self::Plain | Self::ScramSha256 | Self::ScramSha512)
    }
}

impl FromStr for SaslMechanism {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownChoice::new("SASL mechanism", text, Self::ALL.map(Self::name).to_vec()))
    }
}

/// A word that is none of a fixed list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{given}`; one of: {}", choices.join(", "))]
pub struct UnknownChoice {
    what: &'static str,
    given: String,
    choices: Vec<&'static str>,
}

impl UnknownChoice {
    fn new(what: &'static str, given: &str, choices: Vec<&'static str>) -> UnknownChoice {
        UnknownChoice { what, given: given.to_owned(), choices }
    }
}
