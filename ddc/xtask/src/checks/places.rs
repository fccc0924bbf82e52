//! Whether panels lie on the page as a reader expects: inside it, not on top of each other, and in full lines.

use std::collections::BTreeSet;

use serde_json::Value;

/// Width of Grafana's grid.
const WIDTH: u64 = 24;

/// A panel's rectangle.
#[derive(Debug, Clone, Copy)]
struct Place {
    left: u64,
    top: u64,
    width: u64,
    height: u64,
}

impl Place {
    fn of(panel: &Value) -> Option<Self> {
        let number = |key: &str| panel["gridPos"][key].as_u64();
        Some(Self { left: number("x")?, top: number("y")?, width: number("w")?, height: number("h")? })
    }

    fn overlaps(self, other: Self) -> bool {
        self.left < other.left + other.width
            && other.left < self.left + self.width
            && self.top < other.top + other.height
            && other.top < self.top + self.height
    }
}

/// What is wrong with the places of these panels: title, and what.
pub(super) fn check(panels: &[Value]) -> Vec<(String, String)> {
    let title = |panel: &Value| panel["title"].as_str().unwrap_or_default().to_owned();
    let mut wrong = Vec::new();
    let mut seen: Vec<(String, Place)> = Vec::new();
    for panel in panels {
        let Some(place) = Place::of(panel) else {
            wrong.push((title(panel), "has no whole gridPos (x, y, w, h)".to_owned()));
            continue;
        };
        if place.width == 0 || place.height == 0 || place.left + place.width > WIDTH {
            wrong.push((title(panel), format!("does not fit on the page, {WIDTH} wide: {place:?}")));
        }
        for (other, _) in seen.iter().filter(|(_, other)| place.overlaps(*other)) {
            wrong.push((title(panel), format!("lies on panel {other:?}")));
        }
        seen.push((title(panel), place));
    }
    let lines: BTreeSet<u64> = seen.iter().map(|(_, place)| place.top).collect();
    for top in lines {
        let line: Vec<_> = seen.iter().filter(|(_, place)| place.top == top).collect();
        let width: u64 = line.iter().map(|(_, place)| place.width).sum();
        let even = line.windows(2).all(|pair| pair[0].1.height == pair[1].1.height);
        if width < WIDTH || !even {
            let what = "begins a line with a hole in it: make its panels equally high, and 24 wide together";
            wrong.push((line[0].0.clone(), what.to_owned()));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn panels_that_overlap_or_stick_out_are_named() {
        let panel = |title: &str, x: u64, y: u64, w: u64| json!({"title": title, "gridPos": {"x": x, "y": y, "w": w, "h": 8}});
        assert_eq!(check(&[panel("a", 0, 0, 12), panel("b", 12, 0, 12), panel("c", 0, 8, 24)]), []);
        let wrong = check(&[panel("a", 0, 0, 12), panel("b", 11, 7, 12)]);
        assert_eq!(wrong[0], ("b".to_owned(), "lies on panel \"a\"".to_owned()));
        let wrong = check(&[panel("a", 0, 0, 24), panel("b", 0, 8, 12), panel("c", 12, 8, 8)]);
        assert!(wrong.len() == 1 && wrong[0].0 == "b" && wrong[0].1.contains("hole"), "{wrong:?}");
        let mut uneven = [panel("a", 0, 0, 12), panel("b", 12, 0, 12)];
        uneven[1]["gridPos"]["h"] = 6.into();
        assert!(check(&uneven)[0].1.contains("hole"));
        assert!(check(&[panel("a", 16, 0, 9)])[0].1.contains("does not fit"));
        assert!(check(&[panel("a", 0, 0, 0)])[0].1.contains("does not fit"));
        assert!(check(&[json!({"title": "a"})])[0].1.contains("gridPos"));
    }
}
