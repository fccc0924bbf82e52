//! What orders by HTTP have in common: guarded, read within bounds, parsed, and obeyed on a thread that may wait.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::Request as AskedFor;
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::maintenance::{guard, panicked, refused};

/// A kind of order.
pub(super) struct Order {
    /// What a body is that is none.
    pub(super) wrong: &'static str,
    /// One that is right, in JSON.
    pub(super) example: &'static str,
    /// Bytes of its body.
    pub(super) longest: usize,
    /// How long the body may take to come.
    pub(super) within: Duration,
    /// Bodies that are long are read one at a time, so that nobody fills the memory with many.
    pub(super) one_by_one: Option<&'static Semaphore>,
}

impl Order {
    /// Takes one and answers it. An empty body stands for `{}`. Who cannot obey any says so, whatever the order is.
    pub(super) async fn take<T: DeserializeOwned>(
        &self,
        asked: AskedFor,
        cannot: Option<Response>,
        obey: impl FnOnce(T) -> Response + Send + 'static,
    ) -> Response {
        if let Err(why) = guard(asked.headers()) {
            return refused(StatusCode::FORBIDDEN, why);
        }
        if let Some(answer) = cannot {
            return answer;
        }
        let body = match self.body(asked).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let (wrong, example) = (self.wrong, self.example);
        // Parsing many ranges, compiling patterns, writing to disk: not on the thread that answers everybody.
        let obeyed = tokio::task::spawn_blocking(move || {
            match serde_json::from_slice(if body.is_empty() { b"{}" } else { &body }) {
                Ok(order) => obey(order),
                Err(error) => {
                    let why = format!("{wrong}: {error}; for example: {example}");
                    refused(StatusCode::BAD_REQUEST, &why)
                }
            }
        });
        obeyed.await.unwrap_or_else(|_| panicked())
    }

    async fn body(&self, asked: AskedFor) -> Result<Bytes, Response> {
        let Ok(_reading) = self.one_by_one.map(Semaphore::try_acquire).transpose() else {
            return Err(refused(StatusCode::SERVICE_UNAVAILABLE, "another request is being read; ask again"));
        };
        let body = axum::body::to_bytes(asked.into_body(), self.longest);
        match tokio::time::timeout(self.within, body).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) => Err(refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("the request was cut off or has more than {} KiB; split it", self.longest / 1024),
            )),
            Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, "the request took too long to come")),
        }
    }
}

/// Since 1970; a clock before that is told as 1970.
pub(super) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
