//! What this binary is: how it was linked, with which libraries, and what its Kafka client can do.
//!
//! DDC is built in two variants (docs/binaries.md). What a configuration asks for and this variant lacks is refused
//! with the name of the package that has it, instead of failing at run time in librdkafka's words.

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use rdkafka::ClientConfig;

/// The package with the dynamically linked variant of the command.
const GSSAPI_PACKAGE: &str = "ddc-gssapi";

/// How the C library and the others came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// All of it is in the one file; nothing can be loaded while running.
    Static,
    /// The system's libraries are used.
    Dynamic,
}

impl Linkage {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Dynamic => "dynamic",
        }
    }
}

/// What the Kafka client of a binary can do.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// How it was linked.
    pub linkage: Linkage,
    features: Vec<String>,
}

/// What a setting may need that not every binary has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// librdkafka with libsasl2.
    Gssapi,
    /// librdkafka with curl, to fetch tokens.
    Oidc,
    /// Loading OpenSSL modules from shared objects.
    SslModules,
}

impl Capabilities {
    /// Those of the program that is running.
    pub fn of_this_binary() -> &'static Capabilities {
        static THIS: OnceLock<Capabilities> = OnceLock::new();
        THIS.get_or_init(|| {
            let linkage =
                if cfg!(target_feature = "crt-static") { Linkage::Static } else { Linkage::Dynamic };
            // An empty configuration is always made; without its answer nothing is claimed.
            let features =
                ClientConfig::new().create_native_config().and_then(|config| config.get("builtin.features"));
            let mut this = Capabilities::new(linkage, &features.unwrap_or_default());
            // librdkafka built by cmake claims it always: it asks whether WITH_SASL_CYRUS is defined, not whether it is 1.
            this.features.retain(|name| name != "sasl_gssapi" || cfg!(feature = "gssapi"));
            this
        })
    }

    /// From librdkafka's comma-separated list of built-in features.
    pub fn new(linkage: Linkage, features: &str) -> Capabilities {
        Capabilities { linkage, features: features.split(',').map(|name| name.trim().to_owned()).collect() }
    }

    /// Whether librdkafka was built with this feature, by its name there: `sasl_gssapi`, `oidc`, `zstd`…
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|name| name == feature)
    }

    fn meets(&self, need: Need) -> bool {
        match need {
            Need::Gssapi => self.has("sasl_gssapi"),
            Need::Oidc => self.has("oidc"),
            Need::SslModules => self.linkage == Linkage::Dynamic,
        }
    }

    /// What the SASL mechanism of this name needs and this binary lacks.
    pub(crate) fn lacking_for_mechanism(&self, mechanism: &str) -> Option<Need> {
        Some(Need::Gssapi).filter(|need| mechanism == "GSSAPI" && !self.meets(*need))
    }

    /// What this property with this value needs and this binary lacks.
    pub(crate) fn lacking_for_property(&self, name: &str, value: &str) -> Option<Need> {
        need_of(name, value).filter(|need| !self.meets(*need))
    }
}

fn need_of(name: &str, value: &str) -> Option<Need> {
    /// Providers that are part of libcrypto itself.
    const BUILT_IN: [&str; 3] = ["default", "base", "null"];
    match name {
        _ if name.starts_with("sasl.kerberos.") => Some(Need::Gssapi),
        "sasl.oauthbearer.method" if value.eq_ignore_ascii_case("oidc") => Some(Need::Oidc),
        "https.ca.location" | "https.ca.pem" => Some(Need::Oidc),
        "ssl.engine.location" | "ssl.engine.id" => Some(Need::SslModules),
        "ssl.providers" if !value.split(',').all(|name| BUILT_IN.contains(&name.trim())) => {
            Some(Need::SslModules)
        }
        _ => None,
    }
}

impl Need {
    /// What is missing and what to do, to follow "this ddc ".
    pub fn advice(self) -> String {
        match self {
            Self::Gssapi => {
                format!("has no GSSAPI (Kerberos); install the package `{GSSAPI_PACKAGE}` instead of `ddc`")
            }
            Self::SslModules => format!(
                "is static and cannot load modules of OpenSSL; install the package `{GSSAPI_PACKAGE}` instead of `ddc`"
            ),
            Self::Oidc => {
                "cannot fetch tokens over HTTPS, and no package of DDC can yet; use SCRAM or a client certificate".to_owned()
            }
        }
    }
}

unsafe extern "C" {
    /// libcrypto's, which librdkafka brings: the text of the version it runs with.
    fn OpenSSL_version(kind: c_int) -> *const c_char;
    /// glibc's.
    fn gnu_get_libc_version() -> *const c_char;
    /// glibc's: from now on `database` (of nsswitch.conf) is answered by `services` only.
    #[cfg(target_feature = "crt-static")]
    fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
}

/// The version of OpenSSL in use: that of the system, or the one linked in.
pub fn openssl_version() -> String {
    // SAFETY: kind 0 asks for the version; the answer is a constant of the library.
    unsafe { CStr::from_ptr(OpenSSL_version(0)) }.to_string_lossy().into_owned()
}

/// The version of the C library in use: that of the system, or the one linked in.
pub fn glibc_version() -> String {
    // SAFETY: takes nothing and answers with a constant of the library.
    unsafe { CStr::from_ptr(gnu_get_libc_version()) }.to_string_lossy().into_owned()
}

/// To be called first in `main`. A static program that finds a service such as `resolve` or `mdns` in
/// /etc/nsswitch.conf would load the system's shared C library beside its own, of whatever version that is, and may
/// crash in it. So host names are looked up in /etc/hosts and by DNS only. Does nothing in a dynamic program.
pub fn confine_name_resolution() {
    #[cfg(target_feature = "crt-static")]
    for (database, services) in [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")] {
        // SAFETY: two C strings, which glibc copies; called before any other thread runs.
        let failed = unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) } != 0;
        // Only memory can lack, and only at the first lines of main.
        assert!(!failed, "the C library cannot be told how to look up {database:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATIC: &str = "gzip,snappy,ssl,sasl,regex,lz4,sasl_plain,sasl_scram,plugins,zstd,sasl_oauthbearer";

    #[test]
    fn what_this_binary_says_of_itself_is_true() {
        let this = Capabilities::of_this_binary();
        assert!(this.has("ssl") && this.has("sasl_scram") && !this.has("scram"), "{this:?}");
        assert_eq!(this.has("sasl_gssapi"), cfg!(feature = "gssapi"));
        assert!(openssl_version().starts_with("OpenSSL 3."), "{}", openssl_version());
        assert!(glibc_version().starts_with("2."), "{}", glibc_version());
    }

    #[test]
    fn what_a_static_binary_lacks_is_known() {
        let this = Capabilities::new(Linkage::Static, STATIC);
        assert_eq!(this.lacking_for_mechanism("GSSAPI"), Some(Need::Gssapi));
        assert_eq!(this.lacking_for_mechanism("SCRAM-SHA-512"), None);
        for (name, value, need) in [
            ("sasl.kerberos.keytab", "/k", Some(Need::Gssapi)),
            ("sasl.oauthbearer.method", "OIDC", Some(Need::Oidc)),
            ("sasl.oauthbearer.method", "default", None),
            ("https.ca.location", "/ca", Some(Need::Oidc)),
            ("ssl.engine.location", "/e.so", Some(Need::SslModules)),
            ("ssl.providers", "default, base", None),
            ("ssl.providers", "default,legacy", Some(Need::SslModules)),
            ("linger.ms", "5", None),
        ] {
            assert_eq!(this.lacking_for_property(name, value), need, "{name}={value}");
        }
        assert!(!Need::Oidc.advice().contains('`'), "no package that would not help is named");
        assert!(Need::Gssapi.advice().contains("`ddc-gssapi`"));
        assert!(Need::SslModules.advice().contains("`ddc-gssapi`"));
    }

    #[test]
    fn a_dynamic_binary_with_everything_lacks_nothing() {
        let this = Capabilities::new(Linkage::Dynamic, "ssl, sasl_gssapi, oidc");
        assert_eq!(this.lacking_for_mechanism("GSSAPI"), None);
        for (name, value) in
            [("sasl.kerberos.keytab", "/k"), ("sasl.oauthbearer.method", "oidc"), ("ssl.engine.id", "x")]
        {
            assert_eq!(this.lacking_for_property(name, value), None, "{name}");
        }
    }
}
