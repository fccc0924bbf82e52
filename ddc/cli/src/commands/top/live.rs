//! The live screen: keys, samples and pictures, until `q` or a signal. The terminal is restored however it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::fetch::{Report, WAITING, watch};
use super::model::Model;
use super::screen::{Colors, Screen};
use super::target::Target;

/// How long a key may wait for a picture, and a signal for its effect.
const TURN: Duration = Duration::from_millis(100);
/// How often ages are shown anew when no sample comes.
const AGES: Duration = Duration::from_millis(500);
/// Events that are served before a picture: a paste or a held key must not stop it.
const EVENTS: usize = 64;

/// Shows the screen until the user or a signal ends it.
pub(super) fn live(
    runtime: &Runtime,
    targets: Vec<Target>,
    interval: Duration,
    colors: Colors,
) -> io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let (sender, reports) = mpsc::channel(WAITING);
    for (index, target) in targets.iter().cloned().enumerate() {
        runtime.spawn(watch(index, target, interval, sender.clone()));
    }
    let restore = Restore;
    // It sets a panic hook that restores the terminal too.
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, Model::new(targets, interval), reports, colors, &stop);
    drop(restore);
    result
}

/// Restores the terminal at the end of its life, also when starting it failed halfway.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // A terminal that has gone away (ssh broke off) cannot be restored, and need not be.
        let _ = ratatui::try_restore();
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    mut model: Model,
    mut reports: mpsc::Receiver<Report>,
    colors: Colors,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut screen = Screen::new(colors);
    let (mut view, mut made) = (model.view(Instant::now()), Instant::now());
    let mut is_drawn = false;
    while !screen.quit && !stop.load(Ordering::Relaxed) {
        let mut is_news = made.elapsed() >= AGES;
        for _ in 0..WAITING {
            let Ok((index, answer)) = reports.try_recv() else { break };
            model.take(index, answer);
            is_news = true;
        }
        if is_news {
            (view, made) = (model.view(Instant::now()), Instant::now());
        }
        if is_news || !is_drawn {
            terminal.draw(|frame| screen.draw(frame, &view))?;
            is_drawn = true;
        }
        let mut wait = TURN;
        for _ in 0..EVENTS {
            if screen.quit || !event::poll(wait)? {
                break;
            }
            wait = Duration::ZERO;
            // A key or another size asks for a new picture.
            is_drawn = false;
            if let Event::Key(key) = event::read()? {
                screen.key(key, &view);
            }
        }
    }
    Ok(())
}
