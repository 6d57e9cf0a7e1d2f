//! Conditions on metrics, for checks in CI: `hit_ratio>=0.62`.

use std::str::FromStr;

use crate::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    AtLeast,
    AtMost,
    Above,
    Below,
}

/// Longer ones first: `>` begins `>=`.
const RELATIONS: [(&str, Relation); 4] = [
    (">=", Relation::AtLeast),
    ("<=", Relation::AtMost),
    (">", Relation::Above),
    ("<", Relation::Below),
];

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assertion {
    text: String,
    name: String,
    relation: Relation,
    bound: f64,
}

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (sign, relation) = RELATIONS
            .into_iter()
            .find(|(sign, _)| text.contains(sign))
            .ok_or("expected name>=number, with >=, <=, > or <")?;
        let (name, bound) = text.split_once(sign).unwrap_or_default();
        let (name, bound) = (name.trim(), bound.trim());
        if name.is_empty() {
            return Err("expected the name of a metric first".into());
        }
        Ok(Self {
            text: text.to_owned(),
            name: name.to_owned(),
            relation,
            bound: bound
                .parse()
                .map_err(|_| format!("{bound} is not a number"))?,
        })
    }
}

impl Assertion {
    /// The metric itself, or one whose name ends with this one behind a point.
    fn is_about(&self, metric: &str) -> bool {
        matches(&self.name, metric) || matches(&format!("*.{}", self.name), metric)
    }

    fn holds(&self, value: f64) -> bool {
        match self.relation {
            Relation::AtLeast => value >= self.bound,
            Relation::AtMost => value <= self.bound,
            Relation::Above => value > self.bound,
            Relation::Below => value < self.bound,
        }
    }
}

/// # Errors
/// All that does not hold, and conditions on metrics that there are none of.
pub(super) fn check_all(assertions: &[Assertion], metrics: &[(String, f64)]) -> Result<()> {
    let mut failures = Vec::new();
    for assertion in assertions {
        let mut checked = 0;
        for (name, value) in metrics {
            if assertion.is_about(name) {
                checked += 1;
                if !assertion.holds(*value) {
                    failures.push(format!("{} is false: {name} is {value}", assertion.text));
                }
            }
        }
        if checked == 0 {
            failures.push(format!("{}: there is no such metric", assertion.text));
        } else if failures.is_empty() {
            println!("{} holds of {checked} metrics", assertion.text);
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\n  ").into())
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*.b", "x.y.b", true),
            ("a.*@0.1.*", "a.lru@0.1.hit_ratio", true),
            ("a.*@0.1.*", "a.lru@0.2.hit_ratio", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn conditions_hold_of_every_metric_of_the_name() {
        let metrics = [
            ("a.hit_ratio".to_owned(), 0.7),
            ("b.hit_ratio".to_owned(), 0.6),
        ];
        let check = |text: &str| check_all(&[text.parse().unwrap()], &metrics).is_ok();
        assert!(check("hit_ratio>=0.6"));
        assert!(!check("hit_ratio > 0.6"));
        assert!(check("a.hit_ratio>0.6"));
        assert!(check("b.*<=0.6"));
        assert!(!check("miss_ratio<1"), "there is none");
        assert!("hit_ratio".parse::<Assertion>().is_err());
        assert!(">=1".parse::<Assertion>().is_err());
        assert!("x>=y".parse::<Assertion>().is_err());
    }
}
