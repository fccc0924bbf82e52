//! The screen: which page is shown, what a key does, how it is drawn. No terminal here: it draws into a frame.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Clear, Paragraph};

use super::list::{cells, left, list, problems, reasons};
use super::view::{Link, State, View};
use super::{detail, format};

/// Lines at the bottom of the list that tell what is wrong with the selected link.
const REASON_LINES: u16 = 4;

const HELP: &[&str] = &[
    "up, down, k, j      select a link; scroll",
    "page up, page down  a screen at a time",
    "home, end           first, last",
    "enter               the link's page",
    "escape, left        back to the list",
    "p                   pause the picture; samples are still taken",
    "q, ctrl-c           quit",
    "",
    "REC/S, BIT/S, PKT/S at the egress, if seen, else at the ingress",
    "LOSS    lost on the path, net of what came late   (last 60 samples)",
    "FEC     blocks that needed repair                 (last 60 samples)",
    "MISSING records that will not be delivered        (since its start)",
    "P99     end to end, else of the sink              (last 60 samples)",
    "HEART   since the last heartbeat; > none seen yet",
    "",
    "docs/top.md says the rest.",
];

/// What the user sees and has chosen.
#[derive(Default)]
pub(super) struct Screen {
    pub(super) colors: Colors,
    /// The selected link, by name: rows come and go.
    selected: Option<String>,
    is_detail: bool,
    scroll: usize,
    is_help: bool,
    /// The picture that was shown when `p` was pressed.
    paused: Option<Box<View>>,
    /// Rows of the last body drawn: what a page key moves by.
    page: usize,
    pub(super) quit: bool,
}

/// Whether colours are used; states and losses are told by words and figures in any case.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Colors(pub(super) bool);

impl Colors {
    fn color(self, color: Color) -> Style {
        if self.0 { Style::new().fg(color) } else { Style::new() }
    }

    pub(super) fn state(self, state: State) -> Style {
        match state {
            State::Ready => self.color(Color::Green),
            State::Unknown => Style::new(),
            State::NotReady => self.color(Color::Yellow),
            State::Stalled | State::Silent => self.color(Color::Red),
        }
    }

    /// A loss that goes on is red, one that was is yellow.
    pub(super) fn loss(self, per_second: Option<f64>) -> Style {
        self.color(if per_second.is_some_and(|rate| rate > 0.0) { Color::Red } else { Color::Yellow })
    }
}

impl Screen {
    pub(super) fn new(colors: Colors) -> Self {
        Self { colors, page: 1, ..Self::default() }
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: KeyEvent, now: &View) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => self.quit = true,
            _ if control => {}
            KeyCode::Char('q') => self.quit = true,
            KeyCode::Char('?' | 'h') => self.is_help = !self.is_help,
            // Any other key closes the help, and does nothing else.
            _ if self.is_help => self.is_help = false,
            KeyCode::Char('p') => {
                self.paused = if self.paused.is_some() { None } else { Some(Box::new(now.clone())) };
            }
            KeyCode::Enter | KeyCode::Right => {
                let view = self.paused.as_deref().unwrap_or(now);
                if !self.is_detail && !view.links.is_empty() {
                    self.selected = view.links.get(self.index(view)).map(|link| link.link.clone());
                    (self.is_detail, self.scroll) = (true, 0);
                }
            }
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => self.is_detail = false,
            KeyCode::Up | KeyCode::Char('k') => self.go(now, -1),
            KeyCode::Down | KeyCode::Char('j') => self.go(now, 1),
            KeyCode::PageUp => self.go(now, -(self.page as isize)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.go(now, self.page as isize),
            KeyCode::Home => self.go(now, isize::MIN),
            KeyCode::End => self.go(now, isize::MAX),
            _ => {}
        }
    }

    fn go(&mut self, now: &View, by: isize) {
        if self.is_detail {
            // The end is found when it is drawn.
            self.scroll = self.scroll.saturating_add_signed(by).min(usize::from(u16::MAX));
            return;
        }
        let view = self.paused.as_deref().unwrap_or(now);
        let last = view.links.len().saturating_sub(1);
        let index = self.index(view).saturating_add_signed(by).min(last);
        self.selected = view.links.get(index).map(|link| link.link.clone());
    }

    fn index(&self, view: &View) -> usize {
        let selected = self.selected.as_ref();
        selected.and_then(|name| view.links.iter().position(|link| &link.link == name)).unwrap_or(0)
    }

    /// Draws the picture.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, now: &View) {
        let paused = self.paused.take();
        let view = paused.as_deref().unwrap_or(now);
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
                .areas(frame.area());
        self.page = usize::from(body.height.saturating_sub(1)).max(1);
        let link = view.links.get(self.index(view)).filter(|link| {
            // A link that is gone while its page is open leads back to the list.
            !self.is_detail || Some(&link.link) == self.selected.as_ref()
        });
        self.is_detail &= link.is_some();
        bar(frame, head, &head_text(view, self.is_detail.then_some(link).flatten(), paused.is_some()));
        match link.filter(|_| self.is_detail) {
            Some(link) => self.draw_detail(frame, body, link),
            None => self.draw_list(frame, body, view),
        }
        let keys = if self.is_detail {
            " q quit  esc back  up/down scroll  p pause  ? help"
        } else {
            " q quit  enter link  up/down select  p pause  ? help"
        };
        bar(frame, foot, keys);
        if self.is_help {
            draw_help(frame);
        }
        self.paused = paused;
    }

    fn draw_list(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let width = usize::from(area.width);
        let selected = self.index(view);
        let why = view.links.get(selected).map(reasons).unwrap_or_default();
        let below = if area.height >= 12 && !why.is_empty() { REASON_LINES } else { 0 };
        let room = usize::from(area.height.saturating_sub(1 + below));
        // The selected row stays on the screen.
        let first = (selected + 1).saturating_sub(room);
        let list = list(view, width, first..first + room);
        let mut lines = vec![Line::styled(list.titles, Style::new().add_modifier(Modifier::BOLD))];
        for (index, row) in (first..).zip(list.rows) {
            let style = self.colors.state(view.links[index].state);
            let style = if index == selected { style.add_modifier(Modifier::REVERSED) } else { style };
            lines.push(Line::styled(row, style));
        }
        if view.links.is_empty() && view.listeners.iter().all(|listener| listener.problem.is_none()) {
            lines.push(Line::raw("no admin listener has answered yet; ddc top ADDRESS names one"));
        }
        let others = problems(view);
        lines.extend(others.into_iter().map(|line| Line::styled(line, self.colors.state(State::Silent))));
        lines.truncate(room + 1);
        lines.resize(room + 1, Line::default());
        for reason in why.iter().flat_map(|reason| wrap(reason, width, "  ")).take(usize::from(below)) {
            lines.push(Line::raw(reason));
        }
        frame.render_widget(Paragraph::new(Text::from(lines)), area);
    }

    fn draw_detail(&mut self, frame: &mut Frame<'_>, area: Rect, link: &Link) {
        let lines = detail::lines(link, usize::from(area.width), self.colors);
        self.scroll = self.scroll.min(lines.len().saturating_sub(usize::from(area.height)));
        let shown: Vec<Line<'static>> =
            lines.into_iter().skip(self.scroll).take(usize::from(area.height)).collect();
        frame.render_widget(Paragraph::new(Text::from(shown)), area);
    }
}

fn head_text(view: &View, detail: Option<&Link>, paused: bool) -> String {
    let what = if let Some(link) = detail {
        format!("{}: {}", link.link, link.state.words())
    } else {
        let well = view.links.iter().filter(|link| link.state == State::Ready).count();
        let plural = if view.links.len() == 1 { "" } else { "s" };
        format!("{} link{plural}, {well} ready", view.links.len())
    };
    let paused = if paused { "   PAUSED" } else { "" };
    format!(" ddc top   {what}   every {}{paused}", format::seconds(Some(view.interval_seconds)))
}

fn bar(frame: &mut Frame<'_>, area: Rect, text: &str) {
    let line = Line::raw(left(text, usize::from(area.width)));
    frame.render_widget(Paragraph::new(line).style(Style::new().add_modifier(Modifier::REVERSED)), area);
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let [_, rows, _] =
        Layout::vertical([Constraint::Length(2), Constraint::Max(HELP.len() as u16), Constraint::Min(1)])
            .areas(area);
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(format!(" {line}"))).collect();
    frame.render_widget(Clear, rows);
    frame.render_widget(Paragraph::new(lines), rows);
}

/// The text in lines of at most `width` cells, the second and later ones behind `indent`.
pub(super) fn wrap(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive(' ') {
        let is_begun = line.len() > if lines.is_empty() { 0 } else { indent.len() };
        if is_begun && cells(&line) + cells(word.trim_end()) > width {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
        }
        line += word;
    }
    lines.push(line);
    lines.into_iter().map(|line| left(line.trim_end(), width.min(cells(line.trim_end())))).collect()
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
