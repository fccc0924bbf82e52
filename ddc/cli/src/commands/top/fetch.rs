//! Asking listeners: one HTTP client for TCP and Unix sockets, everything bounded in time and size.

use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use reqwest::header::ACCEPT;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at, timeout};

use super::clean::clean;
use super::model::Answer;
use super::page::Page;
use super::status;
use super::target::{Place, Target};
use crate::commands::words;

/// How long a listener may take for its answer; it is then asked again.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(2);
/// The largest metrics page that is read.
const LARGEST_PAGE: usize = 8 * 1024 * 1024;
/// The largest `/readyz` and `/status`; a status with a hundred gaps has 30 KiB.
const LARGEST_STATUS: usize = 1024 * 1024;
/// How often a default port where nothing has answered is tried again.
const GUESS_EVERY: Duration = Duration::from_secs(5);
/// Answers that wait for the screen; the listeners are asked no faster than it takes them.
pub(super) const WAITING: usize = 64;

/// An answer and whose it is.
pub(super) type Report = (usize, Answer);

/// Asks one listener again and again, until nobody takes the answers.
pub(super) async fn watch(index: usize, target: Target, interval: Duration, reports: mpsc::Sender<Report>) {
    let client = Client::new(&target.place);
    let mut ticks = interval_at(tokio::time::Instant::now(), interval);
    // A slow listener is asked at the next tick, not several times at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut answered = false;
    loop {
        ticks.tick().await;
        let answer = match &client {
            Ok(client) => client.ask().await,
            Err(problem) => failed(problem.clone()),
        };
        answered |= answer.metrics.is_ok();
        if reports.send((index, answer)).await.is_err() {
            return;
        }
        if target.guessed && !answered {
            tokio::time::sleep(GUESS_EVERY.saturating_sub(interval)).await;
        }
    }
}

struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    fn new(place: &Place) -> Result<Self, String> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            // Neither a proxy of the environment nor a redirect leads anywhere else than where the user said.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0);
        let (builder, base) = match place {
            Place::Tcp(authority) => (builder, format!("http://{authority}")),
            Place::Unix(path) => (builder.unix_socket(path.as_path()), "http://localhost".to_owned()),
        };
        let http = builder
            .build()
            .map_err(|error| format!("cannot be asked: {}", clean(&error.to_string(), 100)))?;
        Ok(Self { http, base })
    }

    async fn ask(&self) -> Answer {
        let all = async {
            tokio::join!(
                self.metrics(),
                self.get("/readyz", "application/json", LARGEST_STATUS),
                self.get("/status", "application/json", LARGEST_STATUS),
            )
        };
        // Each request has its own limit; this one also bounds reading what came.
        let Ok(((metrics, at), ready, status)) = timeout(PATIENCE + Duration::from_secs(1), all).await else {
            return failed(late());
        };
        let good = |answer: Result<(u16, String), String>, codes: &[u16]| {
            answer.ok().filter(|(code, _)| codes.contains(code)).map(|(_, body)| body)
        };
        Answer {
            at,
            metrics,
            ready: good(ready, &[200, 503]).and_then(|body| status::readiness(&body)),
            status: good(status, &[200]).and_then(|body| status::status(&body)),
        }
    }

    async fn metrics(&self) -> (Result<Page, String>, Instant) {
        let answer = self.get("/metrics", "text/plain", LARGEST_PAGE).await;
        let at = Instant::now();
        let page = match answer {
            Ok((200, body)) => match tokio::task::spawn_blocking(move || Page::parse(&body)).await {
                Ok(page) => page,
                Err(_) => Err("its metrics page cannot be read".to_owned()),
            },
            Ok((code, _)) => {
                Err(format!("it answers /metrics with HTTP {code}: is this a ddc admin listener?"))
            }
            Err(problem) => Err(problem),
        };
        (page, at)
    }

    /// The code and the body of an answer.
    async fn get(&self, path: &str, accept: &str, largest: usize) -> Result<(u16, String), String> {
        let request = self.http.get(format!("{}{path}", self.base)).header(ACCEPT, accept);
        let mut response = request.send().await.map_err(|error| problem(&error))?;
        let code = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| problem(&error))? {
            if body.len() + part.len() > largest {
                return Err(format!("its {path} is larger than {} MiB", largest >> 20));
            }
            body.extend_from_slice(&part);
        }
        let body = String::from_utf8(body).map_err(|_| format!("its {path} is not UTF-8 text"))?;
        Ok((code, body))
    }
}

fn failed(problem: String) -> Answer {
    Answer { at: Instant::now(), metrics: Err(problem), ready: None, status: None }
}

fn late() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

/// An error of the client in words: the system's, when there is one below it.
fn problem(error: &reqwest::Error) -> String {
    let mut below = error.source();
    while let Some(cause) = below {
        if let Some(system) = cause.downcast_ref::<io::Error>().filter(|error| error.raw_os_error().is_some())
        {
            return match system.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    format!("nothing listens there ({})", words(system))
                }
                _ => words(system),
            };
        }
        below = cause.source();
    }
    if error.is_timeout() {
        late()
    } else if error.is_connect() {
        "cannot be reached: is the host's name right?".to_owned()
    } else {
        "it does not answer in HTTP: is this a ddc admin listener?".to_owned()
    }
}
