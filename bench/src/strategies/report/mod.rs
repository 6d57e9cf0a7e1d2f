//! What a study found, and the forms it is told in: a summary on the terminal, JSON, CSV, a page.
//!
//! Every figure that matters is a metric with a name such as `web12.bytes.ferrite-sieve@0.1.hit_ratio`. Comparisons and
//! assertions go by those names.

mod assertion;
mod page;
mod plot;

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::Result;

/// Metrics shown of a comparison at most; the file and the page have all.
const SHOWN_CHANGES: usize = 20;

/// Where the results go, and what is demanded of them.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Output {
    /// Write all figures as JSON; `--compare` reads that
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the curves and metrics as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write one page with tables and plots, which needs nothing else to be shown
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Show what is different from an earlier run's JSON
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// End with status 1 unless this holds of every metric of that name: 'hit_ratio>=0.62', 'lru@0.1.hit_ratio>0.5'; `*` stands for any text
    #[arg(long = "assert", value_name = "CONDITION")]
    assertions: Vec<assertion::Assertion>,
}

pub(crate) struct Report {
    pub(crate) title: String,
    /// Paragraphs in front of everything.
    pub(crate) introduction: Vec<String>,
    /// What was measured and how.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) sections: Vec<Section>,
    pub(crate) metrics: Vec<(String, f64)>,
}

pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) charts: Vec<Chart>,
}

/// The first column names the row.
pub(crate) struct Table {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Logarithmic,
}

pub(crate) struct Line {
    pub(crate) name: String,
    /// To compare others with: drawn thin and dashed.
    pub(crate) is_reference: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Axis {
    pub(crate) fn linear(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            scale: Scale::Linear,
        }
    }

    pub(crate) fn logarithmic(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            scale: Scale::Logarithmic,
        }
    }
}

impl Report {
    /// Tells everything in every form that was asked for.
    ///
    /// # Errors
    /// A file that cannot be written or read, or an assertion that does not hold.
    pub(crate) fn publish(mut self, output: &Output) -> Result<()> {
        if let Some(path) = &output.compare {
            let text =
                fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let changes = self.changes(&serde_json::from_str(&text)?)?;
            self.sections.push(changes);
        }
        self.print();
        let files = [
            (&output.json, self.json()? + "\n"),
            (&output.csv, self.csv()),
            (&output.html, page::page(&self)?),
        ];
        for (path, text) in files {
            if let Some(path) = path {
                fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
                println!("wrote {}", path.display());
            }
        }
        assertion::check_all(&output.assertions, &self.metrics)
    }

    fn print(&self) {
        println!("\n{}\n", self.title);
        for (name, value) in &self.settings {
            println!("  {name}: {value}");
        }
        for section in &self.sections {
            println!("\n{}\n", section.title);
            for table in &section.tables {
                table.print();
                println!();
            }
        }
    }

    fn json(&self) -> Result<String> {
        let object = |pairs: &[(String, String)]| -> Map<String, Value> {
            pairs
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect()
        };
        let metrics: Map<String, Value> = self
            .metrics
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let charts: Vec<Value> = self
            .sections
            .iter()
            .flat_map(|section| &section.charts)
            .map(Chart::json)
            .collect();
        Ok(serde_json::to_string_pretty(&json!({
            "title": self.title,
            "settings": object(&self.settings),
            "metrics": metrics,
            "charts": charts,
        }))?)
    }

    /// One row per point: `chart,line,x,y`; metrics have their name as the line and no x.
    fn csv(&self) -> String {
        let mut text = String::from("chart,line,x,y\n");
        for chart in self.sections.iter().flat_map(|section| &section.charts) {
            for line in &chart.lines {
                for (x, y) in &line.points {
                    text += &format!("{},{},{x},{y}\n", quoted(&chart.title), quoted(&line.name));
                }
            }
        }
        for (name, value) in &self.metrics {
            text += &format!("metric,{},,{value}\n", quoted(name));
        }
        text
    }

    /// What is different from an earlier report's metrics, the greatest change first.
    fn changes(&self, earlier: &Value) -> Result<Section> {
        let old = earlier["metrics"]
            .as_object()
            .ok_or("the file to compare with has no metrics")?;
        let mut changes: Vec<(&str, f64, f64)> = self
            .metrics
            .iter()
            .filter_map(|(name, new)| Some((name.as_str(), old.get(name)?.as_f64()?, *new)))
            .collect();
        if changes.is_empty() {
            return Err("the file to compare with has no metric of this run".into());
        }
        let relative = |(_, old, new): &(&str, f64, f64)| (new - old).abs() / old.abs().max(1e-9);
        let compared = changes.len();
        changes.retain(|change| change.1 != change.2);
        changes.sort_by(|one, other| relative(other).total_cmp(&relative(one)));
        let rows = changes
            .iter()
            .take(SHOWN_CHANGES)
            .map(|&(name, old, new)| {
                let difference = format!("{:+.4}", new - old);
                vec![name.to_owned(), figure(old), figure(new), difference]
            })
            .collect();
        let header = ["metric", "before", "now", "difference"];
        Ok(Section {
            title: "Compared with before".into(),
            text: format!(
                "{} of {compared} metrics that both runs have are different; those that changed most come first.",
                changes.len()
            ),
            tables: vec![Table {
                header: header.map(str::to_owned).to_vec(),
                rows,
            }],
            charts: Vec::new(),
        })
    }
}

impl Table {
    fn print(&self) {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                all()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in all() {
            let mut line = String::from(" ");
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                line += &if column == 0 {
                    format!(" {cell:<width$}")
                } else {
                    format!("  {cell:>width$}")
                };
            }
            println!("{}", line.trim_end());
        }
    }
}

impl Chart {
    fn json(&self) -> Value {
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| json!({"name": line.name, "points": line.points}))
            .collect();
        json!({"title": self.title, "x": self.x.label, "y": self.y.label, "lines": lines})
    }
}

/// A number as people read it: four digits of what is small, none after the point of what is large.
pub(crate) fn figure(number: f64) -> String {
    match number.abs() {
        magnitude if magnitude >= 1000.0 => format!("{number:.0}"),
        magnitude if magnitude >= 10.0 => format!("{number:.1}"),
        magnitude if magnitude >= 1.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

/// Bytes with a unit.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            title: "a <title>".into(),
            introduction: vec!["hello".into()],
            settings: vec![("trace".into(), "x, y".into())],
            sections: vec![Section {
                title: "one".into(),
                text: "text".into(),
                tables: Vec::new(),
                charts: vec![Chart {
                    title: "a, b".into(),
                    x: Axis::logarithmic("size"),
                    y: Axis::linear("ratio"),
                    lines: vec![Line {
                        name: "lru".into(),
                        is_reference: false,
                        points: vec![(0.01, 0.5), (0.1, 0.25)],
                    }],
                }],
            }],
            metrics: vec![("a.hit_ratio".into(), 0.5)],
        }
    }

    #[test]
    fn csv_has_a_row_per_point_and_metric() {
        let expected = "chart,line,x,y\n\"a, b\",lru,0.01,0.5\n\"a, b\",lru,0.1,0.25\nmetric,a.hit_ratio,,0.5\n";
        assert_eq!(report().csv(), expected);
    }

    #[test]
    fn a_report_is_compared_with_its_own_json() {
        let old: Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        let mut new = report();
        new.metrics[0].1 = 0.75;
        let changes = new.changes(&old).unwrap();
        assert_eq!(
            changes.tables[0].rows,
            [["a.hit_ratio", "0.5000", "0.7500", "+0.2500"]]
        );
        assert!(new.changes(&json!({"metrics": {}})).is_err());
    }

    #[test]
    fn the_page_stands_alone() {
        let page = page::page(&report()).unwrap();
        assert!(page.contains("a &lt;title&gt;") && page.contains("<svg"));
        let links = page.matches("http").count();
        let name_spaces = page.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(links, name_spaces, "nothing is loaded from elsewhere");
    }
}
