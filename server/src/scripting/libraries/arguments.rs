//! A function's arguments, with the complaints that Lua's own functions have.

use mlua::{MultiValue, Value};

use crate::scripting::{
    api::{expected, number_of, text_of},
    convert::to_integer,
    problem::Problem,
};

pub(super) struct Arguments<'a> {
    values: &'a MultiValue,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(values: &'a MultiValue) -> Arguments<'a> {
        Arguments { values }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The argument of this number, counted from 1.
    pub(super) fn get(&self, number: usize) -> Option<&'a Value> {
        self.values.get(number.wrapping_sub(1))
    }

    pub(super) fn number(&self, number: usize) -> Result<f64, Problem> {
        let value = self.get(number).and_then(number_of);
        value.ok_or_else(|| self.expected(number, "number"))
    }

    pub(super) fn integer(&self, number: usize) -> Result<i64, Problem> {
        self.number(number).map(to_integer)
    }

    pub(super) fn text(&self, number: usize) -> Result<Vec<u8>, Problem> {
        let value = self.get(number).and_then(text_of);
        value.ok_or_else(|| self.expected(number, "string"))
    }

    pub(super) fn expected(&self, number: usize, wanted: &str) -> Problem {
        expected(self.values, number, wanted)
    }

    pub(super) fn wrong(&self, number: usize, why: impl std::fmt::Display) -> Problem {
        Problem::argument(number, why)
    }
}
