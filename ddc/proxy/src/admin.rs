//! The admin listener: what a link says about itself over HTTP, on loopback and on a Unix socket.
//!
//! ```text
//!  GET /healthz      200, or 503 when the link's threads stand still       (liveness: never depends on Kafka)
//!  GET /readyz       200, or 503 with the reasons                          (text; JSON when asked for)
//!  GET /metrics      Prometheus text
//!  GET /status       JSON
//!      /maintenance  GET, POST, DELETE: see the module `maintenance`
//!      /v1/replay    GET, POST, DELETE: see the module `replay`
//!      /v1/rewind    GET, POST: see the module `rewind`
//!      /v1/pause     GET, POST, and POST /v1/resume: see the module `pause`
//! ```
//!
//! It stands beside the line, not on it: it reads through [`AdminState`], and changes nothing that a record meets. Everything a caller can
//! use up is bounded: connections, the size and the time of a request, the life of a connection. There is no
//! authentication, hence [`AdminServer::bind`] refuses any address that is not loopback.

pub mod client;
mod maintenance;
mod order;
mod pause;
mod replay;
mod rewind;
mod roles;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::config::Admin;
use crate::maintenance::Maintenance;
use crate::pause::Pauses;
use crate::replay::Replays;
use crate::rewind::Rewinds;
use maintenance::Peer;
use roles::{Granted, Role};

/// What the admin listener reports. Called on its thread; each call must return at once and wait for nothing.
pub trait AdminState: Send + Sync + 'static {
    /// Whether the link's threads make progress; if not, what stands still.
    fn health(&self) -> Result<(), String>;
    /// Whether the link does its work; if not, every reason why.
    fn ready(&self) -> Result<(), Vec<String>>;
    /// All metrics as Prometheus text (version 0.0.4).
    fn metrics(&self) -> String;
    /// The link's state for people and programs.
    fn status(&self) -> serde_json::Value;
    /// Announced work on the link.
    fn maintenance(&self) -> &Maintenance;
    /// The replays of an ingress; an egress has none.
    fn replays(&self) -> Option<&Replays> {
        None
    }
    /// The rewinds of an ingress; an egress has none.
    fn rewinds(&self) -> Option<&Rewinds> {
        None
    }
    /// The pauses of an ingress that reads from Kafka; nothing else can be paused.
    fn pauses(&self) -> Option<&Pauses> {
        None
    }
    /// What the pauses say, with what is read now.
    fn pause_status(&self) -> Option<serde_json::Value> {
        None
    }
    /// Called each second by the process: brings those metrics up to date that no event moves. Whether the link does its
    /// work, as [`AdminState::ready`].
    fn each_second(&self) -> Result<(), Vec<String>>;
}

/// Connections served at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Bytes of a request's head; ours have a few hundred.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// How long a client may take to send a request's head, and how long an idle connection is kept.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a connection may live; a scraper simply connects again.
const CONNECTION_TIME: Duration = Duration::from_mins(1);
/// How long a stop waits for answers that are under way.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// How long to wait after a failed accept (no file descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the admin listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Anything but loopback.
    #[error("admin listener {0}: only loopback addresses are served without TLS and authentication")]
    NotLoopback(SocketAddr),
    /// The TCP address cannot be bound.
    #[error("admin listener {address}: {error}{}", in_use(.error))]
    Tcp {
        /// The address of `[admin] listen`.
        address: SocketAddr,
        /// The kernel's answer.
        error: io::Error,
    },
    /// Something that is not a socket has the path.
    #[error("admin socket {}: something else has this path; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// Another process serves the path.
    #[error("admin socket {}: another process answers on it; stop that one or choose another path", .0.display())]
    Answered(PathBuf),
    /// The socket cannot be made.
    #[error("admin socket {}: {error}{}", .path.display(), no_directory(.path, .error))]
    Unix {
        /// The path of `[admin] socket`.
        path: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
}

fn in_use(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse { "; choose another port in [admin] listen" } else { "" }
}

fn no_directory(path: &Path, error: &io::Error) -> String {
    match path.parent() {
        Some(parent) if error.kind() == io::ErrorKind::NotFound => {
            format!("; run: mkdir -p {}", parent.display())
        }
        _ => String::new(),
    }
}

/// A bound admin listener. Answers once [`AdminServer::run`] is polled.
pub struct AdminServer {
    tcp: Option<StdTcpListener>,
    unix: Option<UnixSocket>,
    state: Arc<dyn AdminState>,
}

impl AdminServer {
    /// Binds what `admin` names. Nothing is answered yet.
    pub fn bind(admin: &Admin, state: Arc<dyn AdminState>) -> Result<Self, AdminError> {
        let tcp = admin.listen.map(bind_tcp).transpose()?;
        let unix = admin.socket.as_deref().map(UnixSocket::bind).transpose()?;
        Ok(Self { tcp, unix, state })
    }

    /// The TCP address, with the port that the kernel chose when 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Answers until `stop` is ready, then finishes what is under way, for 2 s at most. Runs on any tokio runtime with
    /// I/O and time.
    pub async fn run(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let router = router(self.state);
        let (stopping, stopped) = watch::channel(false);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut accepting = JoinSet::new();
        if let Some(listener) = self.tcp {
            let listener = TcpListener::from_std(listener)?;
            accepting.spawn(accept(listener, router.clone(), slots.clone(), stopped.clone()));
        }
        let path = match self.unix {
            Some(socket) => {
                let (listener, path) = socket.into_parts();
                accepting.spawn(accept(UnixListener::from_std(listener)?, router, slots, stopped));
                Some(path)
            }
            None => None,
        };
        stop.await;
        // Nobody listens any more when there is no listener at all: that is fine.
        let _ = stopping.send(true);
        drop(path);
        while accepting.join_next().await.is_some() {}
        Ok(())
    }
}

fn bind_tcp(address: SocketAddr) -> Result<StdTcpListener, AdminError> {
    if !address.ip().is_loopback() {
        return Err(AdminError::NotLoopback(address));
    }
    let bind = || {
        // std sets SO_REUSEADDR on Unix, so a restart does not wait for old connections.
        let listener = StdTcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error| AdminError::Tcp { address, error })
}

/// A Unix socket and its file, which goes when the listener goes.
struct UnixSocket {
    listener: StdUnixListener,
    file: SocketFile,
}

impl UnixSocket {
    /// Binds beside the path, sets the mode, then renames: nobody meets a socket with a wrong mode, and a stale file
    /// is replaced in one step.
    fn bind(path: &Path) -> Result<Self, AdminError> {
        let failed = |error| AdminError::Unix { path: path.to_owned(), error };
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(AdminError::NotASocket(path.to_owned()));
            }
            Ok(_) if StdUnixStream::connect(path).is_ok() => {
                return Err(AdminError::Answered(path.to_owned()));
            }
            Ok(_) => tracing::info!(path = %path.display(), "a stale admin socket is replaced"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        // Left over from a process with our id.
        let _ = std::fs::remove_file(&fresh);
        let bind = || {
            let listener = StdUnixListener::bind(&fresh)?;
            listener.set_nonblocking(true)?;
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))?;
            std::fs::rename(&fresh, path)?;
            let inode = std::fs::symlink_metadata(path)?.ino();
            Ok(Self { listener, file: SocketFile { path: path.to_owned(), inode } })
        };
        bind().map_err(|error| {
            let _ = std::fs::remove_file(&fresh);
            failed(error)
        })
    }

    fn into_parts(self) -> (StdUnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// Removes the socket's file, unless a successor has replaced it.
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            // If it cannot be removed, the next start finds it stale.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What TCP and Unix listeners have in common.
trait Accept: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn next(&self) -> io::Result<(Self::Stream, Peer)> {
        self.accept().await.map(|(stream, peer)| (stream, Peer(peer.to_string())))
    }
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn next(&self) -> io::Result<(Self::Stream, Peer)> {
        let (stream, _) = self.accept().await?;
        let peer = match stream.peer_cred() {
            Ok(peer) => format!("uid {} pid {}", peer.uid(), peer.pid().unwrap_or(0)),
            Err(_) => "the Unix socket".to_owned(),
        };
        Ok((stream, Peer(peer)))
    }
}

async fn accept<L: Accept>(
    listener: L,
    router: Router,
    slots: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let told = stopped.clone();
    loop {
        // Ended connections are forgotten, so the set holds at most MAX_CONNECTIONS.
        while connections.try_join_next().is_some() {}
        let connection = async {
            // The semaphore is never closed.
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.next().await)
        };
        tokio::select! {
            (slot, stream) = connection => match stream {
                Ok((stream, peer)) => {
                    // Loopback and Unix sockets: whoever gets here may do everything.
                    let router = router.clone().layer(Extension(peer)).layer(Extension(Granted(Role::Operate)));
                    let serving = serve(stream, router, told.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin listener cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = told_to_stop(&mut stopped) => break,
        }
    }
    drop(listener);
    let drain = async { while connections.join_next().await.is_some() {} };
    // What is not done by then is dropped with the set.
    let _ = tokio::time::timeout(DRAIN_TIME, drain).await;
}

/// Waits for the word to stop, or for the end of who would say it.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Serves one connection until it ends, its time is up, or the server stops.
async fn serve<S>(stream: S, router: Router, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(MAX_REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // Errors here are the client's: a reset, a request that is no HTTP.
        _ = connection.as_mut() => return,
        () = told_to_stop(&mut stopped) => {}
        () = tokio::time::sleep(CONNECTION_TIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(DRAIN_TIME, connection).await;
}

fn router(state: Arc<dyn AdminState>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/maintenance", get(maintenance::get).post(maintenance::post).delete(maintenance::delete))
        .route("/v1/replay", get(replay::list).post(replay::post))
        .route("/v1/replay/{id}", get(replay::get).delete(replay::delete))
        .route("/v1/rewind", get(rewind::list).post(rewind::post))
        .route("/v1/rewind/{id}", get(rewind::get))
        .route("/v1/pause", get(pause::get).post(pause::pause))
        .route("/v1/resume", post(pause::resume))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "not found; there are /healthz, /readyz, /metrics, /status, /maintenance, /v1/replay, /v1/rewind, /v1/pause and /v1/resume\n",
            )
        })
        .method_not_allowed_fallback(async || {
            (
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is answered here; /maintenance and /v1/replay also take POST and DELETE, /v1/rewind, /v1/pause and /v1/resume POST\n",
            )
        })
        .layer(from_fn(roles::check))
        .with_state(state)
}

type Shared = State<Arc<dyn AdminState>>;

async fn healthz(State(state): Shared) -> Response {
    match state.health() {
        Ok(()) => fresh("ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, fresh(why + "\n")).into_response(),
    }
}

async fn readyz(State(state): Shared, headers: HeaderMap) -> Response {
    let (code, reasons) = match state.ready() {
        Ok(()) => (StatusCode::OK, Vec::new()),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    };
    let json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let body = match (json, reasons.as_slice()) {
        (true, reasons) => {
            let body = serde_json::json!({ "ready": code == StatusCode::OK, "reasons": reasons });
            typed("application/json", body.to_string() + "\n")
        }
        (false, []) if code == StatusCode::OK => fresh("ready\n".to_owned()),
        (false, reasons) => fresh(format!("not ready\n{}\n", reasons.join("\n"))),
    };
    (code, body).into_response()
}

async fn metrics(State(state): Shared) -> Response {
    typed("text/plain; version=0.0.4; charset=utf-8", state.metrics())
}

async fn status(State(state): Shared) -> Response {
    typed("application/json", state.status().to_string() + "\n")
}

fn fresh(body: String) -> Response {
    typed("text/plain; charset=utf-8", body)
}

/// An answer that nobody may keep: it holds for this moment only.
fn typed(content_type: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
