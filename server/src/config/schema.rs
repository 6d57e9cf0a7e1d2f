//! What a row of the directives' table is made of, and the macro that turns the rows into the typed [`Settings`] and
//! the list [`DIRECTIVES`] that reads, shows and documents them.
//!
//! [`Settings`]: super::Settings
//! [`DIRECTIVES`]: super::directives::DIRECTIVES

use super::Settings;
use super::form::{Rejection, Source};

/// When a directive can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// With `CONFIG SET`.
    AtRunTime,
    /// With `CONFIG SET`, by those whom `enable-protected-configs` lets.
    Protected,
    /// In the file or on the command line only.
    AtStart,
}

/// What a directive does in this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Effective,
    /// Read, checked, shown and rewritten, but otherwise ignored, for this reason.
    AcceptedWithoutEffect(&'static str),
}

/// Whether patterns of `CONFIG GET` find a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    Listed,
    /// Only by its full name: for debugging.
    Hidden,
}

/// Reads words into a directive's field.
pub(super) type Update = fn(&mut Settings, &[&[u8]], Source) -> Result<(), Rejection>;

/// One row: a name and how to work on its field of [`Settings`].
pub(super) struct Directive {
    pub(super) name: &'static str,
    pub(super) aliases: &'static [&'static str],
    pub(super) section: &'static str,
    pub(super) summary: &'static str,
    pub(super) change: Change,
    pub(super) effect: Effect,
    pub(super) visibility: Visibility,
    pub(super) update: Update,
    pub(super) show: fn(&Settings) -> Vec<u8>,
    pub(super) lines: fn(&Settings) -> Vec<Vec<u8>>,
    pub(super) goes_without_saying: fn(&Settings) -> bool,
    pub(super) copy: fn(&mut Settings, &Settings),
    pub(super) equal: fn(&Settings, &Settings) -> bool,
    pub(super) describe: fn() -> String,
}

/// Declares `Settings` and `DIRECTIVES` from rows of the form
///
/// ```text
/// /// Summary.
/// field: Type = form, "name" | "alias", Change, Effect;
/// ```
/// A row may end in `, Hidden`.
macro_rules! directives {
    ($( $section:literal { $(
        $(#[doc = $summary:literal])+
        $field:ident: $type:ty = $form:expr, $name:literal $(| $alias:literal)*, $change:expr, $effect:expr
            $(, $hidden:ident)?;
    )+ } )+) => {
        /// The current value of every directive, as plain types. The fields are named like the directives.
        #[derive(Clone)]
        pub struct Settings { $( $(
            $(#[doc = $summary])+
            pub $field: $type,
        )+ )+ }

        impl Default for Settings {
            fn default() -> Settings {
                Settings { $( $( $field: $crate::config::form::Form::initial(&$form), )+ )+ }
            }
        }

        /// Every directive, in the order of the reference page.
        pub(super) static DIRECTIVES: &[$crate::config::schema::Directive] = &[ $( $(
            $crate::config::schema::Directive {
                name: $name,
                aliases: &[$( $alias ),*],
                section: $section,
                summary: concat!($( $summary ),+),
                change: $change,
                effect: $effect,
                visibility: $crate::config::schema::visibility!($($hidden)?),
                update: |settings, words, source| {
                    $crate::config::form::read_words(&$form, &mut settings.$field, words, source)
                },
                show: |settings| $crate::config::form::Form::show(&$form, &settings.$field),
                lines: |settings| $crate::config::form::Form::lines(&$form, &settings.$field),
                goes_without_saying: |settings| {
                    $crate::config::form::Form::goes_without_saying(&$form, &settings.$field)
                },
                copy: |settings, other| settings.$field.clone_from(&other.$field),
                equal: |settings, other| settings.$field == other.$field,
                describe: || $crate::config::schema::describe::<$type, _>(&$form),
            },
        )+ )+ ];
    };
}
pub(super) use directives;

macro_rules! visibility {
    () => {
        $crate::config::schema::Visibility::Listed
    };
    (Hidden) => {
        $crate::config::schema::Visibility::Hidden
    };
}
pub(super) use visibility;

/// [`Form::describe`](super::form::Form::describe), with the field's type spelled out for forms that are generic in it.
pub(super) fn describe<V, F: super::form::Form<Value = V>>(form: &F) -> String {
    form.describe()
}
