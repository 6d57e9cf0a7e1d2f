//! The report as one page: plots are inside it as SVG, nothing is loaded from elsewhere.

use super::{Report, Section, Table, plot};
use crate::Result;

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1040px; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; } h3 { font-size: 1em; margin: 1.5em 0 .3em; }
p { max-width: 46em; }
table { border-collapse: collapse; font-size: .9em; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .7em; text-align: right; border-bottom: 1px solid #e5e5e5; }
th:first-child, td:first-child { text-align: left; }
div.wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1em 1em; font-size: .9em; } dt { color: #666; } dd { margin: 0; }
";

/// # Errors
/// A chart that cannot be drawn.
pub(super) fn page(report: &Report) -> Result<String> {
    let title = escaped(&report.title);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    for paragraph in &report.introduction {
        text += &format!("<p>{}</p>\n", escaped(paragraph));
    }
    text += "<dl>\n";
    for (name, value) in &report.settings {
        text += &format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value));
    }
    text += "</dl>\n";
    for section in &report.sections {
        add_section(&mut text, section)?;
    }
    text += "</html>\n";
    Ok(text)
}

fn add_section(text: &mut String, section: &Section) -> Result<()> {
    *text += &format!(
        "<h2>{}</h2>\n<p>{}</p>\n",
        escaped(&section.title),
        escaped(&section.text)
    );
    for chart in &section.charts {
        *text += &format!(
            "<h3>{}</h3>\n{}\n",
            escaped(&chart.title),
            plot::svg(chart)?
        );
    }
    for table in &section.tables {
        add_table(text, table);
    }
    Ok(())
}

fn add_table(text: &mut String, table: &Table) {
    let row = |tag: &str, cells: &[String]| {
        let cells: String = cells
            .iter()
            .map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)))
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    *text += "<div class=\"wide\"><table>\n";
    *text += &row("th", &table.header);
    for cells in &table.rows {
        *text += &row("td", cells);
    }
    *text += "</table></div>\n";
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
