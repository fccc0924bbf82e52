//! Orders to a running ingress, and its answers: what `ddc replay`, `rewind`, `pause` and `resume` have in common.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ddc_proxy::admin::client::{self, Answer, Place};
use ddc_proxy::config;
use serde::de::DeserializeOwned;

use crate::exit::{Exit, Failure};

/// The admin listener of the ingress with this configuration file.
pub(super) fn place(file: &Path) -> Result<Place, Failure> {
    let admin =
        config::load_admin(file).map_err(|error| Failure { exit: Exit::Config, lines: error.lines() })?;
    admin.socket.map(Place::Unix).or(admin.listen.map(Place::Tcp)).ok_or_else(|| {
        let why = "no admin listener to ask; write for example: [admin] socket = \"/run/ddc/admin.sock\" (a replay can go --offline)";
        Failure::new(Exit::Config, format!("{}: {why}", file.display()))
    })
}

pub(super) fn ask(place: &Place, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer, Failure> {
    match client::ask_for(place, method, path, body) {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Failure::new(
            Exit::Unavailable,
            format!("{place}: does not answer in HTTP: is this a ddc admin listener?"),
        )),
        Err(error) => Err(Failure::new(
            Exit::Unavailable,
            format!(
                "{place}: {}; is the ingress running, and is this its configuration file?{}",
                super::words(&error),
                if path.starts_with("/v1/replay") {
                    " Without one a replay is possible: --offline, as the service's user"
                } else {
                    ""
                }
            ),
        )),
    }
}

/// What an answer says; what the ingress refuses is the exit code of a wrong command line.
pub(super) fn read<T: DeserializeOwned>(place: &Place, answer: &Answer) -> Result<T, Failure> {
    let failed = |exit, why: &str| Err(Failure::new(exit, format!("{place}: {}", why.trim_end())));
    match answer.code {
        200 | 202 => match serde_json::from_str(&answer.body) {
            Ok(read) => Ok(read),
            Err(error) => failed(Exit::Unavailable, &format!("the answer is not understood: {error}")),
        },
        400 | 413 | 422 => failed(Exit::Usage, &answer.body),
        _ => failed(Exit::Unavailable, &answer.body),
    }
}

/// A name that no order before has.
pub(super) fn new_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("cli-{}-{}", now.as_micros(), std::process::id())
}
