//! What a PromQL expression asks for: the selectors, how each is reduced, and the labels that are grouped by.
//!
//! Parsing is the crate promql-parser's; this only walks its tree.

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{Expr, VectorSelector, parse as parse_promql};

/// One expression, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Expression {
    pub(crate) selectors: Vec<Selector>,
    /// Labels in `by`, `without`, `on`, `ignoring` and `group_left`.
    pub(crate) grouped: Vec<Grouped>,
    /// Labels that `label_replace` and `label_join` make.
    pub(crate) made: Vec<String>,
}

/// A label that is grouped or matched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grouped {
    pub(crate) label: String,
    /// Whether an aggregation stands around it, so that the label is gone in the end.
    pub(crate) inside: bool,
}

/// `name{label="value"}`, with what stands around it.
#[derive(Debug)]
pub(crate) struct Selector {
    /// Empty when only labels are given.
    pub(crate) metric: String,
    pub(crate) matchers: Vec<Matcher>,
    /// The function whose range it is: `rate`, `increase`, `last_over_time` …
    pub(crate) function: Option<&'static str>,
    /// The nearest aggregation around it: `max`, `sum` …
    pub(crate) reducer: Option<String>,
}

/// `label="value"`
#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) kind: MatchKind,
}

/// How a label's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchKind {
    Equal,
    NotEqual,
    Pattern,
    NotPattern,
}

/// Takes an expression apart; the error is the parser's, which says where it stopped.
pub(crate) fn parse(expression: &str) -> Result<Expression, String> {
    let tree = parse_promql(expression)?;
    let mut out = Expression::default();
    walk(&tree, &Around::default(), &mut out);
    Ok(out)
}

/// What stands around the part that is looked at.
#[derive(Debug, Clone, Default)]
struct Around {
    function: Option<&'static str>,
    reducer: Option<String>,
}

/// The depth is bounded by the parser, which has walked the same tree.
fn walk(tree: &Expr, around: &Around, out: &mut Expression) {
    match tree {
        Expr::Aggregate(aggregate) => {
            if let Some(modifier) = &aggregate.modifier {
                group(&modifier.labels().labels, around, out);
            }
            if let Some(parameter) = &aggregate.param {
                walk(parameter, around, out);
            }
            let inside = Around { function: None, reducer: Some(aggregate.op.to_string()) };
            walk(&aggregate.expr, &inside, out);
        }
        Expr::Binary(binary) => {
            if let Some(modifier) = &binary.modifier {
                if let Some(matching) = &modifier.matching {
                    group(&matching.labels().labels, around, out);
                }
                if let Some(labels) = modifier.card.labels() {
                    group(&labels.labels, around, out);
                }
            }
            walk(&binary.lhs, around, out);
            walk(&binary.rhs, around, out);
        }
        Expr::Call(call) => {
            if let (true, Some(Expr::StringLiteral(label))) = (
                matches!(call.func.name, "label_replace" | "label_join"),
                call.args.args.get(1).map(|a| &**a),
            ) {
                out.made.push(label.val.clone());
            }
            let inside = Around { function: Some(call.func.name), reducer: around.reducer.clone() };
            for argument in &call.args.args {
                walk(argument, &inside, out);
            }
        }
        Expr::Paren(inner) => walk(&inner.expr, around, out),
        Expr::Unary(inner) => walk(&inner.expr, around, out),
        Expr::Subquery(inner) => walk(&inner.expr, around, out),
        Expr::VectorSelector(selector) => out.selectors.push(taken(selector, around)),
        Expr::MatrixSelector(matrix) => out.selectors.push(taken(&matrix.vs, around)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

fn group(labels: &[String], around: &Around, out: &mut Expression) {
    let inside = around.reducer.is_some();
    out.grouped.extend(labels.iter().map(|label| Grouped { label: label.clone(), inside }));
}

fn taken(selector: &VectorSelector, around: &Around) -> Selector {
    Selector {
        metric: selector.name.clone().unwrap_or_default(),
        matchers: matchers(&selector.matchers),
        function: around.function,
        reducer: around.reducer.clone(),
    }
}

fn matchers(all: &Matchers) -> Vec<Matcher> {
    all.matchers
        .iter()
        .chain(all.or_matchers.iter().flatten())
        .map(|matcher| Matcher {
            label: matcher.name.clone(),
            value: matcher.value.clone(),
            kind: match matcher.op {
                MatchOp::Equal => MatchKind::Equal,
                MatchOp::NotEqual => MatchKind::NotEqual,
                MatchOp::Re(_) => MatchKind::Pattern,
                MatchOp::NotRe(_) => MatchKind::NotPattern,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_taken_apart() {
        let found = parse(
            r#"sum by (link) (max by (link, reason) (rate(a_total{side="egress",reason=~"x|y"}[5m]))) / on (link) group_left (site) b"#,
        )
        .unwrap();
        let [a, b] = &found.selectors[..] else { panic!("{found:?}") };
        assert_eq!(
            (a.metric.as_str(), a.function, a.reducer.as_deref()),
            ("a_total", Some("rate"), Some("max"))
        );
        assert_eq!((b.metric.as_str(), b.function, b.reducer.as_deref()), ("b", None, None));
        let matchers: Vec<_> =
            a.matchers.iter().map(|m| (m.label.as_str(), m.value.as_str(), m.kind)).collect();
        assert_eq!(matchers, [("side", "egress", MatchKind::Equal), ("reason", "x|y", MatchKind::Pattern)]);
        let reason = found.grouped.iter().find(|l| l.label == "reason").unwrap();
        assert!(reason.inside, "{found:?}");
        for label in ["link", "reason", "site"] {
            assert!(found.grouped.iter().any(|l| l.label == label), "{label}: {found:?}");
        }
    }

    #[test]
    fn labels_that_are_made_are_known() {
        let found = parse(r#"label_replace(a, "made", "$1", "process", "egress-(.*)")"#).unwrap();
        assert_eq!(found.made, ["made"]);
    }

    #[test]
    fn what_is_not_promql_is_refused() {
        for wrong in ["rate(a)", "sum by (link (a)", "a{link=}", "", "max by (link) (a[5m])"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
