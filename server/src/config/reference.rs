//! What the table says about directives, for people: `ferrite --help <directive>`, and the page
//! `docs/configuration.md`. A test holds the page to the table; run it with `UPDATE_DOCS=1` to write the page anew.

use super::schema::{Change, Directive, Effect};
use super::{Settings, find, memory_size};

/// A directive's meaning, values and default as a few lines. `None` if there is no such directive.
pub(super) fn explain(name: &[u8]) -> Option<String> {
    let (_, directive) = find(name)?;
    let names: Vec<&str> = std::iter::once(&directive.name)
        .chain(directive.aliases)
        .copied()
        .collect();
    let default = default(directive);
    Some(format!(
        "{} ({})\n  {}\n  values:  {}\n  default: {}\n  changes: {}\n",
        names.join(", "),
        directive.section,
        meaning(directive),
        (directive.describe)(),
        if default.is_empty() {
            "empty"
        } else {
            &default
        },
        changes(directive),
    ))
}

fn meaning(directive: &Directive) -> String {
    let summary = directive.summary.trim();
    match directive.effect {
        Effect::Effective => summary.to_owned(),
        Effect::AcceptedWithoutEffect(reason) => format!("{summary} *No effect: {reason}.*"),
    }
}

fn changes(directive: &Directive) -> &'static str {
    match directive.change {
        Change::AtRunTime => "at run time",
        Change::Protected => "protected",
        Change::AtStart => "at start",
    }
}

/// The default, sizes with their unit, what depends on the machine in words.
fn default(directive: &Directive) -> String {
    match directive.name {
        "dir" => return "where the server was started".to_owned(),
        "io-threads" => return "the number of cores".to_owned(),
        _ => {}
    }
    let shown = (directive.show)(&Settings::default());
    let shown = String::from_utf8_lossy(&shown);
    let is_size = (directive.describe)().starts_with("size");
    match shown.parse() {
        Ok(bytes) if is_size => memory_size::format(bytes),
        _ => shown.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs};

    use super::*;
    use crate::config::directives::DIRECTIVES;
    use crate::config::schema::Visibility;

    const INTRODUCTION: &str = "\
# Configuration

Ferrite reads the configuration files of Redis and Valkey: a directive with its values on a line, `#` before comments,
`\"\"` for an empty value, quotes and escapes in values. A later line wins over an earlier one; `save`, `user` and
`rename-command` lines add up. `include` reads another file, or all that match a pattern.

```
ferrite [file | -] [--directive value ...]
```

`-` reads lines from the standard input; options on the command line win over both. `CONFIG GET`, `CONFIG SET` and
`CONFIG REWRITE` work on the running server. `ferrite memcached` takes memcached's options instead (`ferrite memcached
--help`).

Sizes may have a unit: `1k` is 1000 bytes, `1kb` 1024, likewise `m`, `mb`, `g`, `gb`.

Every directive of Valkey 9.1 is known. One that has no effect here says so and why; its value is checked, shown and
rewritten all the same. *At start* means in the file or on the command line only; *protected* means at run time if
`enable-protected-configs` lets.

This page is written from the table in `server/src/config/directives.rs`.
";

    fn page() -> String {
        let mut page = INTRODUCTION.to_owned();
        let mut section = "";
        for directive in DIRECTIVES
            .iter()
            .filter(|directive| directive.visibility == Visibility::Listed)
        {
            if directive.section != section {
                section = directive.section;
                let header =
                    "| directive | meaning | values | default | changes |\n|---|---|---|---|---|";
                page += &format!("\n## {section}\n\n{header}\n");
            }
            page += &row(directive);
        }
        page.push_str("\n## Known by their full names only\n\nFor debugging the original; none has an effect.\n\n");
        let hidden = DIRECTIVES
            .iter()
            .filter(|directive| directive.visibility == Visibility::Hidden);
        let names: Vec<String> = hidden
            .map(|directive| format!("`{}`", directive.name))
            .collect();
        page += &format!("{}\n", names.join(", "));
        page
    }

    fn row(directive: &Directive) -> String {
        let mut names = format!("`{}`", directive.name);
        for alias in directive.aliases {
            names += &format!(" `{alias}`");
        }
        let default = match default(directive) {
            empty if empty.is_empty() => "`\"\"`".to_owned(),
            words if matches!(directive.name, "dir" | "io-threads") => words,
            value => format!("`{value}`"),
        };
        let values = (directive.describe)();
        format!(
            "| {names} | {} | {values} | {default} | {} |\n",
            meaning(directive),
            changes(directive)
        )
    }

    #[test]
    fn the_reference_page_is_what_the_table_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, page()).expect("the page can be written");
        }
        let written = fs::read_to_string(&path).expect("the page exists");
        assert!(
            written == page(),
            "docs/configuration.md is stale: UPDATE_DOCS=1 cargo test -p server reference_page"
        );
    }

    #[test]
    fn a_directive_is_explained_by_any_of_its_names() {
        let text = explain(b"Slave-Priority").expect("it is known");
        assert!(
            text.starts_with("replica-priority, slave-priority (Replication)\n"),
            "{text}"
        );
        assert_eq!(explain(b"nosuch"), None);
    }
}
