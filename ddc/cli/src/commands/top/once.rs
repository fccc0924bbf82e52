//! `--once`: two samples of every listener, one interval apart, as a table or as JSON.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::fetch::{PATIENCE, Report, WAITING, watch};
use super::model::Model;
use super::target::Target;
use super::view::View;

/// Samples of each listener.
const SAMPLES: usize = 2;

/// What two samples say; nothing when no listener answered, with each one's reason.
pub(super) async fn once(targets: Vec<Target>, interval: Duration) -> Result<View, Vec<String>> {
    let mut model = Model::new(targets.clone(), interval);
    let (sender, mut reports) = mpsc::channel::<Report>(WAITING);
    let mut waiting = vec![SAMPLES; targets.len()];
    let guessed: Vec<bool> = targets.iter().map(|target| target.guessed).collect();
    for (index, target) in targets.into_iter().enumerate() {
        tokio::spawn(watch(index, target, interval, sender.clone()));
    }
    // Both samples, each with all the patience there is.
    let end = tokio::time::Instant::now() + 2 * (interval + PATIENCE) + Duration::from_secs(2);
    while waiting.iter().any(|left| *left > 0) {
        let Ok(Some((index, answer))) = tokio::time::timeout_at(end, reports.recv()).await else { break };
        if waiting[index] == 0 {
            continue;
        }
        // A default port where nothing is need not be asked twice.
        let is_nothing = guessed[index] && answer.metrics.is_err();
        waiting[index] = if is_nothing { 0 } else { waiting[index] - 1 };
        model.take(index, answer);
    }
    let view = model.view(Instant::now());
    if model.any_answered() {
        return Ok(view);
    }
    let problem = |listener: &super::view::Listener| {
        Some(format!("{}: {}", listener.address, listener.problem.as_ref()?))
    };
    Err(view.listeners.iter().filter_map(problem).collect())
}
