//! `ddc ready`: asks a running link whether it does its work, or only whether it lives; made for container probes and scripts.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ddc_proxy::admin::client::{self, Answer, PATIENCE, Place};
use ddc_proxy::config;

use super::{print, words};
use crate::exit::{Exit, Failure};

/// Ask a running ingress or egress whether it is ready
///
/// Exit code 0 when it is; 69 when it is not, with the reasons, or when it does not answer. Writes nothing and needs
/// nothing but the admin listener: for Docker's HEALTHCHECK and for exec probes in Kubernetes, with --live for liveness.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    whom: Whom,
    /// Ask whether its threads move, not whether it does its work: for liveness probes. Never depends on Kafka
    #[arg(long)]
    live: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// The link's configuration file, of which only the admin listener counts; keys are not read. Several: all must be
    /// ready
    #[arg(short = 'c', long = "config", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// The admin listener's TCP address, such as 127.0.0.1:9641
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// The admin listener's Unix socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let reasons: Vec<String> = places(&arguments.whom)?
        .iter()
        .filter_map(|place| ask(place, arguments.live).err())
        .flatten()
        .collect();
    if !reasons.is_empty() {
        return Err(Failure { exit: Exit::Unavailable, lines: reasons });
    }
    print(if arguments.live { "live\n" } else { "ready\n" })
}

/// Whom to ask: one listener for each link.
fn places(whom: &Whom) -> Result<Vec<Place>, Failure> {
    let given = whom.admin.map(Place::Tcp).or_else(|| whom.socket.clone().map(Place::Unix));
    if let Some(place) = given {
        return Ok(vec![place]);
    }
    let of_file = |file: &PathBuf| {
        let admin =
            config::load_admin(file).map_err(|error| Failure { exit: Exit::Config, lines: error.lines() })?;
        // The socket needs no port; both answer alike.
        let place = admin.socket.map(Place::Unix).or(admin.listen.map(Place::Tcp));
        place.ok_or_else(|| {
            let why = "no admin listener to ask; write for example: [admin] socket = \"/run/ddc/admin.sock\"";
            Failure::new(Exit::Config, format!("{}: {why}", file.display()))
        })
    };
    whom.files.iter().map(of_file).collect()
}

/// The reasons, when the answer is no.
fn ask(place: &Place, live: bool) -> Result<(), Vec<String>> {
    let (path, word) = if live { ("/healthz", "not live") } else { ("/readyz", "not ready") };
    let unavailable = |why: String| Err(vec![format!("{place}: {why}")]);
    match client::get(place, path) {
        Ok(Some(Answer { code: 200, .. })) => Ok(()),
        Ok(Some(Answer { code: 503, body })) => {
            // The first line of `/readyz` only says so.
            let reasons: Vec<String> = body
                .lines()
                .skip(usize::from(!live))
                .filter(|line| !line.is_empty())
                .map(|line| format!("{word}: {line}"))
                .collect();
            if reasons.is_empty() { unavailable(word.to_owned()) } else { Err(reasons) }
        }
        Ok(Some(Answer { code, .. })) => {
            unavailable(format!("answers with HTTP {code}: is this a ddc admin listener?"))
        }
        Ok(None) => unavailable("does not answer in HTTP: is this a ddc admin listener?".to_owned()),
        Err(error) => unavailable(no_answer(&error)),
    }
}

fn no_answer(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            format!("nothing listens there ({})", words(error))
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s", PATIENCE.as_secs())
        }
        _ => words(error),
    }
}
