//! What a dashboard consists of, as little as our five need. [`super::json`] makes Grafana's JSON of it.

use super::query::Query;

/// One page of Grafana.
pub(crate) struct Dashboard {
    /// The file's name without `.json`; the uid is `ddc-` and this.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What it answers, for whom.
    pub(crate) about: &'static str,
    pub(crate) variables: &'static [Variable],
    pub(crate) rows: Vec<Row>,
}

/// What the reader chooses at the top of the page, besides the data source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variable {
    /// One or more sites.
    Site,
    /// Exactly one link.
    OneLink,
    /// One or more links.
    Links,
    /// One or more processes.
    Processes,
}

/// A heading and its panels, which fill lines of 24 units from left to right.
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) panels: Vec<Panel>,
}

/// One panel.
pub(crate) struct Panel {
    /// Unique on its page: the panel's id is made from it, so links to a panel hold when others are added.
    pub(crate) title: &'static str,
    pub(crate) view: View,
    /// What to see in it and when to worry; the metrics' own help is added.
    pub(crate) about: &'static str,
    /// Grafana's unit; without it that of the first query.
    pub(crate) unit: Option<&'static str>,
    pub(crate) targets: Vec<Target>,
    /// Width (of 24) and height.
    pub(crate) size: (u32, u32),
    /// From which value on which colour.
    pub(crate) steps: Vec<(f64, &'static str)>,
    /// Words and colours for values.
    pub(crate) words: Vec<(&'static str, &'static str, &'static str)>,
    /// Alerts whose runbooks are linked.
    pub(crate) runbooks: &'static [&'static str],
    /// The smallest step of its queries, where the source is slower than the scrapes.
    pub(crate) step: Option<&'static str>,
    /// Only the series' names count: the value is always 1.
    pub(crate) names_only: bool,
}

/// How a panel shows its queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Lines over time.
    Lines,
    /// Areas on top of each other.
    Stack,
    /// One big number for each series.
    Number,
    /// Bands of states over time.
    States,
    /// A line for each link, a column for each query.
    Table,
}

/// One query of a panel.
pub(crate) struct Target {
    pub(crate) query: Query,
    /// The series' name, or the column's in a table.
    pub(crate) legend: &'static str,
    /// Why it may give nothing in a healthy run; `None`: it always gives something.
    pub(crate) may_be_empty: Option<&'static str>,
    /// Colours and words of a table's column.
    pub(crate) steps: Vec<(f64, &'static str)>,
    pub(crate) words: Vec<(&'static str, &'static str, &'static str)>,
    /// Carries its meaning in a label, not in the value; in a table the value is then hidden.
    pub(crate) hide_value: bool,
}

/// Green, then red from 1 on: for counts of what must not happen.
pub(crate) const NONE_IS_GOOD: [(f64, &str); 2] = [(0.0, "green"), (1.0, "red")];
/// 0 is bad.
pub(crate) const YES_IS_GOOD: [(&str, &str, &str); 2] = [("0", "no", "red"), ("1", "yes", "green")];
/// 0 is good.
pub(crate) const NO_IS_GOOD: [(&str, &str, &str); 2] = [("0", "no", "green"), ("1", "yes", "orange")];

/// A query and how its series are called.
pub(crate) fn target(query: Query, legend: &'static str) -> Target {
    Target { query, legend, may_be_empty: None, steps: Vec::new(), words: Vec::new(), hide_value: false }
}

impl Target {
    /// It may give nothing in a healthy run, for that reason.
    pub(crate) fn may_be_empty(mut self, why: &'static str) -> Self {
        self.may_be_empty = Some(why);
        self
    }

    pub(crate) fn steps(mut self, steps: &[(f64, &'static str)]) -> Self {
        self.steps = steps.to_vec();
        self
    }

    pub(crate) fn words(mut self, words: &[(&'static str, &'static str, &'static str)]) -> Self {
        self.words = words.to_vec();
        self
    }

    pub(crate) fn hide_value(mut self) -> Self {
        self.hide_value = true;
        self
    }
}

/// Lines, a third of the page wide.
pub(crate) fn lines(title: &'static str, about: &'static str, targets: Vec<Target>) -> Panel {
    panel(View::Lines, title, about, targets, (8, 8))
}

/// Areas on top of each other, a third of the page wide.
pub(crate) fn stack(title: &'static str, about: &'static str, targets: Vec<Target>) -> Panel {
    panel(View::Stack, title, about, targets, (8, 8))
}

/// A number, a sixth of the page wide.
pub(crate) fn number(title: &'static str, about: &'static str, query: Query) -> Panel {
    panel(View::Number, title, about, vec![target(query, "{{link}}")], (4, 4))
}

/// States over time, half the page wide.
pub(crate) fn states(title: &'static str, about: &'static str, targets: Vec<Target>) -> Panel {
    panel(View::States, title, about, targets, (12, 8))
}

/// A table over the whole width.
pub(crate) fn table(title: &'static str, about: &'static str, targets: Vec<Target>) -> Panel {
    panel(View::Table, title, about, targets, (24, 10))
}

fn panel(
    view: View,
    title: &'static str,
    about: &'static str,
    targets: Vec<Target>,
    size: (u32, u32),
) -> Panel {
    Panel {
        title,
        view,
        about,
        unit: None,
        targets,
        size,
        steps: Vec::new(),
        words: Vec::new(),
        runbooks: &[],
        step: None,
        names_only: false,
    }
}

impl Panel {
    pub(crate) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }

    pub(crate) fn wide(mut self, width: u32) -> Self {
        self.size.0 = width;
        self
    }

    pub(crate) fn sized(mut self, width: u32, height: u32) -> Self {
        self.size = (width, height);
        self
    }

    pub(crate) fn step(mut self, step: &'static str) -> Self {
        self.step = Some(step);
        self
    }

    pub(crate) fn names_only(mut self) -> Self {
        self.names_only = true;
        self
    }

    pub(crate) fn steps(mut self, steps: &[(f64, &'static str)]) -> Self {
        self.steps = steps.to_vec();
        self
    }

    pub(crate) fn words(mut self, words: &[(&'static str, &'static str, &'static str)]) -> Self {
        self.words = words.to_vec();
        self
    }

    /// The series' name in a number or state panel.
    pub(crate) fn legend(mut self, legend: &'static str) -> Self {
        for target in &mut self.targets {
            target.legend = legend;
        }
        self
    }

    /// Links the runbooks of these alerts.
    pub(crate) fn runbooks(mut self, alerts: &'static [&'static str]) -> Self {
        self.runbooks = alerts;
        self
    }
}
