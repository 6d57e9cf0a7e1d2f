//! Forms: how the text of a directive becomes a typed value, and how the value is shown again.
//!
//! A form knows its initial value, what it accepts (with the error texts clients and operators know from the original),
//! the one spelling in which `CONFIG GET` shows a value, and the lines `CONFIG REWRITE` writes for it.
//! Reading what was written gives the same value; a property test over the whole table holds every form to that.

mod choice;
mod list;
mod number;
mod text;

use std::borrow::Cow;

pub use choice::ShutdownOptions;
pub(super) use choice::{Choice, choice, choices, shutdown_options, yes_no};
pub use list::{KeyspaceEvents, OutputLimit, OutputLimits, SavePoint};
pub(super) use list::{
    addresses, keyspace_events, oom_adjustments, output_limits, percentiles, replica_of,
    save_points,
};
pub(super) use number::{integer, memory, memory_or_percent, octal, signed_memory};
pub(super) use text::{directory, os_reason, path, secret, text};

/// Why a value was not accepted, in the words of the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection(pub(super) Cow<'static, str>);

impl From<&'static str> for Rejection {
    fn from(reason: &'static str) -> Rejection {
        Rejection(Cow::Borrowed(reason))
    }
}

impl From<String> for Rejection {
    fn from(reason: String) -> Rejection {
        Rejection(Cow::Owned(reason))
    }
}

/// Where a value comes from, which matters to directives whose lines accumulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The directive's first line in the files and on the command line.
    FirstLine,
    /// A later line of the same directive.
    LaterLine,
    /// `CONFIG SET`.
    RunTime,
}

/// How many words a form reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    One,
    /// Any number. One word that contains blanks stands for several: `save "900 1 300 10"`.
    Several,
}

pub(super) trait Form {
    type Value: Clone + PartialEq;

    const WORDS: Words = Words::One;

    fn initial(&self) -> Self::Value;

    /// Changes `value` to what `words` say; leaves it alone if they are rejected.
    fn update(
        &self,
        value: &mut Self::Value,
        words: &[&[u8]],
        source: Source,
    ) -> Result<(), Rejection>;

    /// The value as `CONFIG GET` shows it.
    fn show(&self, value: &Self::Value) -> Vec<u8>;

    /// What follows the directive's name, for each line that a file needs to have this value.
    fn lines(&self, value: &Self::Value) -> Vec<Vec<u8>> {
        vec![self.show(value)]
    }

    /// Whether a file that says nothing about the directive gives this value.
    fn goes_without_saying(&self, value: &Self::Value) -> bool {
        *value == self.initial()
    }

    /// The accepted values, for the reference page.
    fn describe(&self) -> String;
}

/// Brings `words` into the shape that `form` reads, and lets it read them.
pub(super) fn read_words<F: Form>(
    form: &F,
    value: &mut F::Value,
    words: &[&[u8]],
    source: Source,
) -> Result<(), Rejection> {
    match (F::WORDS, words) {
        (Words::One, [_]) => form.update(value, words, source),
        (Words::One, _) => Err("wrong number of arguments".into()),
        (Words::Several, [b""]) => form.update(value, &[], source),
        // Exactly one blank separates words here; two of them make an empty word, which no form accepts.
        (Words::Several, [only]) => {
            let parts: Vec<&[u8]> = only.split(|byte| *byte == b' ').collect();
            form.update(value, &parts, source)
        }
        (Words::Several, _) => form.update(value, words, source),
    }
}

/// Joins words with single blanks.
fn join<T: AsRef<[u8]>>(words: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut out = Vec::new();
    for word in words {
        if !out.is_empty() {
            out.push(b' ');
        }
        out.extend(word.as_ref());
    }
    out
}
