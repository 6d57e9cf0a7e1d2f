//! Forms of chosen words: yes or no, one of several names, a set of names.

use super::{Form, Rejection, Source, Words, join};

/// `yes` or `no`.
pub(in super::super) struct YesNo {
    initial: bool,
    refusal: Option<&'static str>,
}

pub(in super::super) const fn yes_no(initial: bool) -> YesNo {
    YesNo {
        initial,
        refusal: None,
    }
}

impl YesNo {
    /// This program cannot do it: `yes` is refused with this reason.
    pub(in super::super) const fn never_yes(mut self, reason: &'static str) -> YesNo {
        self.refusal = Some(reason);
        self
    }
}

impl Form for YesNo {
    type Value = bool;

    fn initial(&self) -> bool {
        self.initial
    }

    fn update(&self, value: &mut bool, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        *value = match words[0] {
            word if word.eq_ignore_ascii_case(b"yes") => match self.refusal {
                None => true,
                Some(reason) => return Err(reason.into()),
            },
            word if word.eq_ignore_ascii_case(b"no") => false,
            _ => return Err("argument must be 'yes' or 'no'".into()),
        };
        Ok(())
    }

    fn show(&self, value: &bool) -> Vec<u8> {
        if *value {
            b"yes".to_vec()
        } else {
            b"no".to_vec()
        }
    }

    fn describe(&self) -> String {
        "yes, no".to_owned()
    }
}

/// A closed set of values with names. The first name of a value is the one shown.
pub(in super::super) trait Choice: Copy + PartialEq + 'static {
    const NAMES: &'static [(&'static str, Self)];
}

/// Declares an enum whose variants have names in the configuration.
macro_rules! choices {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $text:literal $(| $other:literal)*, )+ } )+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$variant_doc])* $variant, )+ }

        impl $crate::config::form::Choice for $name {
            const NAMES: &'static [(&'static str, $name)] =
                &[$( ($text, $name::$variant), $( ($other, $name::$variant), )* )+];
        }

        impl $name {
            /// The name the configuration has for it.
            pub fn name(self) -> &'static str {
                match self { $( $name::$variant => $text, )+ }
            }
        }
    )+ };
}
pub(in super::super) use choices;

/// One name out of a closed set.
pub(in super::super) struct OneOf<T> {
    initial: T,
}

pub(in super::super) const fn choice<T: Choice>(initial: T) -> OneOf<T> {
    OneOf { initial }
}

impl<T: Choice> Form for OneOf<T> {
    type Value = T;

    fn initial(&self) -> T {
        self.initial
    }

    fn update(&self, value: &mut T, words: &[&[u8]], _: Source) -> Result<(), Rejection> {
        let found = T::NAMES
            .iter()
            .find(|(name, _)| words[0].eq_ignore_ascii_case(name.as_bytes()));
        *value = found
            .ok_or_else(|| not_one_of(T::NAMES.iter().map(|(name, _)| *name)))?
            .1;
        Ok(())
    }

    fn show(&self, value: &T) -> Vec<u8> {
        let name = T::NAMES
            .iter()
            .find(|(_, named)| named == value)
            .map_or("", |(name, _)| name);
        name.as_bytes().to_vec()
    }

    fn describe(&self) -> String {
        list(T::NAMES.iter().map(|(name, _)| *name))
    }
}

/// What a signal to terminate does: options of SHUTDOWN. None of them is `default`: save if save points are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownOptions {
    pub save: bool,
    pub nosave: bool,
    pub now: bool,
    pub force: bool,
    pub safe: bool,
    pub failover: bool,
}

impl ShutdownOptions {
    fn option(&mut self, name: &[u8]) -> Option<&mut bool> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"save" => &mut self.save,
            b"nosave" => &mut self.nosave,
            b"now" => &mut self.now,
            b"force" => &mut self.force,
            b"safe" => &mut self.safe,
            b"failover" => &mut self.failover,
            _ => return None,
        })
    }
}

pub(in super::super) struct ShutdownForm;

pub(in super::super) const fn shutdown_options() -> ShutdownForm {
    ShutdownForm
}

impl Form for ShutdownForm {
    type Value = ShutdownOptions;

    const WORDS: Words = Words::Several;

    fn initial(&self) -> ShutdownOptions {
        ShutdownOptions::default()
    }

    fn update(
        &self,
        value: &mut ShutdownOptions,
        words: &[&[u8]],
        _: Source,
    ) -> Result<(), Rejection> {
        const NAMES: [&str; 7] = [
            "default", "save", "nosave", "now", "force", "safe", "failover",
        ];
        if words.is_empty() {
            return Err(not_one_of(NAMES));
        }
        let mut options = ShutdownOptions::default();
        for word in words
            .iter()
            .filter(|word| !word.eq_ignore_ascii_case(b"default"))
        {
            *options.option(word).ok_or_else(|| not_one_of(NAMES))? = true;
        }
        if options.save && options.nosave {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
        }
        *value = options;
        Ok(())
    }

    fn show(&self, value: &ShutdownOptions) -> Vec<u8> {
        let chosen = [
            ("save", value.save),
            ("nosave", value.nosave),
            ("now", value.now),
            ("force", value.force),
            ("safe", value.safe),
            ("failover", value.failover),
        ];
        match join(
            chosen
                .iter()
                .filter(|(_, chosen)| *chosen)
                .map(|(name, _)| name),
        ) {
            none if none.is_empty() => b"default".to_vec(),
            some => some,
        }
    }

    fn describe(&self) -> String {
        "default, or some of save, nosave, now, force, safe, failover".to_owned()
    }
}

fn not_one_of(names: impl IntoIterator<Item = &'static str>) -> Rejection {
    format!("argument(s) must be one of the following: {}", list(names)).into()
}

fn list(names: impl IntoIterator<Item = &'static str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}
