//! Pictures of fixed data at several widths, and what keys do.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::time::Instant;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::model::tests::both;
use super::super::view::Listener;
use super::*;

fn view() -> View {
    let (mut model, now): (_, Instant) = both();
    let mut view = model.view(now);
    view.version = "0.0.0";
    view
}

/// So many links, every third one in trouble.
fn fleet(links: usize) -> View {
    let mut view = view();
    let one = view.links.remove(0);
    view.links = (0..links)
        .map(|n| {
            let mut link = Link { link: format!("link-{n:03}"), ..one.clone() };
            if n % 3 != 0 {
                link.state = State::Ready;
            }
            link
        })
        .collect();
    view
}

fn picture(screen: &mut Screen, view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(row).collect::<Vec<_>>().join("\n")
}

fn press(screen: &mut Screen, view: &View, keys: &[KeyCode]) {
    for key in keys {
        screen.key(KeyEvent::from(*key), view);
    }
}

#[test]
fn the_list_at_every_width() {
    let mut screen = Screen::new(Colors(false));
    for width in [60, 80, 120, 200] {
        insta::assert_snapshot!(format!("list_{width}"), picture(&mut screen, &view(), width, 14));
    }
}

#[test]
fn the_page_of_a_link() {
    let mut screen = Screen::new(Colors(true));
    press(&mut screen, &view(), &[KeyCode::Enter]);
    insta::assert_snapshot!("detail_80", picture(&mut screen, &view(), 80, 24));
    insta::assert_snapshot!("detail_120", picture(&mut screen, &view(), 120, 60));
    insta::assert_snapshot!("detail_60", picture(&mut screen, &view(), 60, 70));
}

#[test]
fn the_help_and_the_empty_screen() {
    let mut screen = Screen::new(Colors(true));
    let empty = View { interval_seconds: 1.0, ..View::default() };
    insta::assert_snapshot!("empty", picture(&mut screen, &empty, 80, 8));
    press(&mut screen, &empty, &[KeyCode::Enter, KeyCode::Down, KeyCode::End, KeyCode::Char('?')]);
    insta::assert_snapshot!("help", picture(&mut screen, &empty, 80, 24));
    press(&mut screen, &empty, &[KeyCode::Down]);
    assert!(!screen.is_help && !screen.quit);
}

/// No size and no data makes it panic, and no line is wider than the screen.
#[test]
fn any_size_is_drawn() {
    let huge = "x\u{6f22}".repeat(120);
    let mut hostile = fleet(3);
    hostile.links[0].link = huge.clone();
    hostile.links[1].egress.as_mut().unwrap().common.reasons = vec![huge.clone(); 40];
    hostile.listeners.push(Listener { address: huge.clone(), problem: Some(huge), ..Listener::default() });
    for view in [View::default(), view(), fleet(40), hostile] {
        for (width, height) in [(1, 1), (2, 3), (10, 4), (59, 5), (60, 24), (80, 24), (133, 50), (200, 60)] {
            let mut screen = Screen::new(Colors(true));
            for keys in [&[][..], &[KeyCode::End], &[KeyCode::Enter], &[KeyCode::End], &[KeyCode::Char('?')]]
            {
                press(&mut screen, &view, keys);
                picture(&mut screen, &view, width, height);
            }
        }
    }
}

#[test]
fn five_hundred_rows_scroll_and_the_selection_stays_on_the_screen() {
    let (view, mut screen) = (fleet(512), Screen::new(Colors(false)));
    assert!(picture(&mut screen, &view, 80, 24).contains("link-000"));
    press(&mut screen, &view, &[KeyCode::End]);
    let last = picture(&mut screen, &view, 80, 24);
    assert!(last.contains("link-511") && !last.contains("link-000"), "{last}");
    press(&mut screen, &view, &[KeyCode::Up, KeyCode::PageUp, KeyCode::PageUp]);
    assert!(picture(&mut screen, &view, 80, 24).contains(screen.selected.as_deref().unwrap()));
    press(&mut screen, &view, &[KeyCode::Home, KeyCode::Down, KeyCode::Char('j'), KeyCode::Enter]);
    assert!(picture(&mut screen, &view, 80, 24).lines().next().unwrap().contains("link-002"));
    // The selection follows the link, not the row.
    press(&mut screen, &view, &[KeyCode::Esc]);
    let mut fewer = view.clone();
    fewer.links.remove(0);
    press(&mut screen, &fewer, &[KeyCode::Enter]);
    assert!(picture(&mut screen, &fewer, 80, 24).lines().next().unwrap().contains("link-002"));
    // Its link gone, the page gives way to the list.
    fewer.links.retain(|link| link.link != "link-002");
    assert!(picture(&mut screen, &fewer, 80, 24).contains("510 links") && !screen.is_detail);
    picture(&mut screen, &fewer, 80, 24);
}

#[test]
fn a_pause_holds_the_picture_and_quit_quits() {
    let mut screen = Screen::new(Colors(false));
    press(&mut screen, &fleet(3), &[KeyCode::Char('p')]);
    let paused = picture(&mut screen, &fleet(9), 80, 24);
    assert!(paused.contains("PAUSED") && paused.contains("link-002") && !paused.contains("link-003"));
    press(&mut screen, &fleet(9), &[KeyCode::Char('p')]);
    assert!(picture(&mut screen, &fleet(9), 80, 24).contains("link-003"));
    screen.key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::CONTROL), &fleet(1));
    assert!(!screen.quit);
    screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &fleet(1));
    assert!(screen.quit);
}

#[test]
fn without_colour_nothing_is_coloured() {
    for (colors, expected) in [(false, false), (true, true)] {
        let mut screen = Screen::new(Colors(colors));
        let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
        let mut found = false;
        for keys in [&[][..], &[KeyCode::Enter]] {
            press(&mut screen, &view(), keys);
            terminal.draw(|frame| screen.draw(frame, &view())).unwrap();
            found |= terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset);
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn long_texts_are_wrapped_within_the_width() {
    assert_eq!(wrap("one two three four", 9, "  "), ["one two", "  three", "  four"]);
    assert_eq!(wrap("", 9, "  "), [""]);
    assert!(wrap(&"long ".repeat(50), 20, "    ").iter().all(|line| cells(line) <= 20));
    assert_eq!(wrap("unbreakable", 5, "  "), ["unbr…"]);
}
