//! Sorting many elements a slice at a time: they are read from a clone in runs, each run is sorted, and runs are merged
//! until one is left.

use std::{cmp::Ordering, collections::VecDeque, ops::Range, vec};

use protocol::resp::reply::ReplyWriter;
use storage::value::{
    Value,
    element::{Element, Scratch},
    list::{End, List, ListLimits},
};

use super::{
    NOT_NUMBERS,
    options::{Direction, Kind},
    pattern::Found,
};
use crate::dispatch::{
    command::{Later, Result},
    preparation::Work,
};

/// Elements of a run, and elements merged, written or stored per slice.
const SLICE: usize = 500;

/// How the elements are put in order.
#[derive(Clone, Copy)]
pub(super) struct Order {
    /// None leaves them as they come.
    pub kind: Option<Kind>,
    pub direction: Direction,
}

/// An element that was read: its number, and where its text is.
#[derive(Clone, Copy)]
struct Item {
    number: f64,
    start: usize,
    len: u32,
    /// Which of the texts.
    run: u32,
}

/// The texts of each run's elements.
#[derive(Default)]
struct Texts(Vec<Vec<u8>>);

impl Texts {
    fn of(&self, item: Item) -> &[u8] {
        &self.0[item.run as usize][item.start..item.start + item.len as usize]
    }

    fn compare(&self, order: Order, one: &Item, other: &Item) -> Ordering {
        let numbers = match order.kind {
            Some(Kind::Number) => one.number.partial_cmp(&other.number),
            _ => None,
        };
        let ascending = numbers
            .unwrap_or(Ordering::Equal)
            .then_with(|| self.of(*one).cmp(self.of(*other)));
        match order.direction {
            Direction::Ascending => ascending,
            Direction::Descending => ascending.reverse(),
        }
    }
}

/// Two runs on their way to become one.
struct Merge {
    left: vec::IntoIter<Item>,
    right: vec::IntoIter<Item>,
    merged: Vec<Item>,
}

/// See the module's description.
pub(super) struct Sorting {
    source: Value,
    order: Order,
    /// The elements that are wanted, counted in the order asked for.
    window: Range<usize>,
    /// Where reading goes on; none when all is read.
    cursor: Option<u64>,
    texts: Texts,
    runs: VecDeque<Vec<Item>>,
    merge: Option<Merge>,
}

impl Sorting {
    /// Of a list, set or sorted set.
    pub(super) fn new(source: Value, order: Order, mut window: Range<usize>) -> Sorting {
        let mut first = 0;
        if order.kind.is_none() && !matches!(source, Value::Set(_)) {
            first = window.start;
            window = 0..window.len();
        }
        Sorting {
            source,
            order,
            window,
            cursor: Some(first as u64),
            texts: Texts::default(),
            runs: VecDeque::new(),
            merge: None,
        }
    }

    fn len(&self) -> usize {
        match &self.source {
            Value::List(list) => list.len(),
            Value::Set(set) => set.len(),
            Value::SortedSet(set) => set.len(),
            _ => 0,
        }
    }

    /// Reads or merges some more. True when the elements are in order.
    ///
    /// # Errors
    /// An element is no number.
    fn advance(&mut self) -> Result<bool> {
        if let Some(cursor) = self.cursor {
            self.cursor = self.read(cursor)?;
        } else if let Some(merge) = &mut self.merge {
            if merge.advance(&self.texts, self.order, self.window.end) {
                self.runs
                    .extend(self.merge.take().map(|merge| merge.merged));
            }
        } else if self.runs.len() > 1 {
            // Each of them is there, by the condition.
            let mut next = || self.runs.pop_front().unwrap_or_default().into_iter();
            self.merge = Some(Merge::new(next(), next()));
        }
        Ok(self.cursor.is_none() && self.merge.is_none() && self.runs.len() <= 1)
    }

    /// Reads a run. Returns the next cursor.
    fn read(&mut self, cursor: u64) -> Result<Option<u64>> {
        let mut items = Vec::with_capacity(SLICE);
        let mut texts = Vec::new();
        let run = self.texts.0.len() as u32;
        let mut numbers = true;
        let by_number = self.order.kind == Some(Kind::Number);
        let mut add = |element: Element<'_>| {
            let mut scratch = Scratch::new();
            let text = element.bytes(&mut scratch);
            let number = match by_number {
                true => Found::Element(element).number(),
                false => Some(0.0),
            };
            numbers &= number.is_some();
            items.push(Item {
                number: number.unwrap_or_default(),
                start: texts.len(),
                len: text.len() as u32,
                run,
            });
            texts.extend_from_slice(text);
        };
        let start = usize::try_from(cursor).unwrap_or(usize::MAX);
        let end = start.saturating_add(SLICE).min(self.len());
        // What is left as it comes may be wanted from its end.
        let backwards = self.order.kind.is_none() && self.order.direction == Direction::Descending;
        let range = match backwards {
            true => self.len() - end..self.len() - start,
            false => start..end,
        };
        let mut next = Some(end as u64).filter(|_| end < self.len());
        match &self.source {
            Value::List(list) if backwards => list.range_rev(range).for_each(&mut add),
            Value::List(list) => list.range(range).for_each(&mut add),
            Value::SortedSet(set) if backwards => {
                let members = set.range(range).rev().map(|(member, _)| member);
                members.for_each(|member| add(Element::new(member)));
            }
            Value::SortedSet(set) => {
                let members = set.range(range).map(|(member, _)| member);
                members.for_each(|member| add(Element::new(member)));
            }
            Value::Set(set) => {
                next = Some(set.scan(cursor, SLICE, &mut add)).filter(|&next| next != 0);
            }
            _ => next = None,
        }
        if !numbers {
            return Err(NOT_NUMBERS);
        }
        self.texts.0.push(texts);
        self.keep(items);
        Ok(next)
    }

    /// Keeps what may be wanted of a run.
    fn keep(&mut self, mut items: Vec<Item>) {
        if self.order.kind.is_some() {
            items.sort_unstable_by(|one, other| self.texts.compare(self.order, one, other));
            items.truncate(self.window.end);
            self.runs.push_back(items);
            return;
        }
        match self.runs.front_mut() {
            Some(all) => all.extend(items),
            None => {
                let mut all = Vec::with_capacity(self.window.end);
                all.extend(items);
                self.runs.push_back(all);
            }
        }
        if self.runs[0].len() >= self.window.end {
            self.cursor = None;
        }
    }

    /// The wanted elements, once they are in order.
    fn wanted(&self) -> &[Item] {
        let all = self.runs.front().map_or(&[][..], Vec::as_slice);
        let end = self.window.end.min(all.len());
        &all[self.window.start.min(end)..end]
    }
}

impl Merge {
    fn new(left: vec::IntoIter<Item>, right: vec::IntoIter<Item>) -> Merge {
        let merged = Vec::with_capacity(left.len() + right.len());
        Merge {
            left,
            right,
            merged,
        }
    }

    /// Merges some items, `most` in all. True when that is done.
    fn advance(&mut self, texts: &Texts, order: Order, most: usize) -> bool {
        for _ in 0..SLICE {
            let (left, right) = (self.left.as_slice(), self.right.as_slice());
            let from_left = match (left.first(), right.first()) {
                (Some(left), Some(right)) => texts.compare(order, left, right) != Ordering::Greater,
                (left, _) => left.is_some(),
            };
            let next = if from_left {
                self.left.next()
            } else {
                self.right.next()
            };
            self.merged.extend(next);
            if next.is_none() || self.merged.len() >= most {
                return true;
            }
        }
        false
    }
}

/// Sorts, then writes what is wanted.
pub(super) struct Answer {
    sorting: Sorting,
    /// What to write of each element: it, or that nothing was found.
    get: Vec<bool>,
    /// How many are written, when the elements are in order.
    written: Option<usize>,
}

impl Answer {
    pub(super) fn new(sorting: Sorting, get: Vec<bool>) -> Answer {
        Answer {
            sorting,
            get,
            written: None,
        }
    }

    fn begin(&mut self, writer: &mut ReplyWriter) -> bool {
        match self.sorting.advance() {
            Ok(false) => false,
            Ok(true) => {
                let count = self.sorting.wanted().len();
                writer.array(count.saturating_mul(self.get.len()));
                self.written = Some(0);
                count == 0
            }
            Err(error) => {
                writer.error_bytes(error.as_bytes());
                true
            }
        }
    }
}

impl Later for Answer {
    fn write(&mut self, writer: &mut ReplyWriter) -> bool {
        let Some(written) = self.written else {
            return self.begin(writer);
        };
        let wanted = self.sorting.wanted();
        let end = (written + SLICE).min(wanted.len());
        for item in &wanted[written..end] {
            for &is_element in &self.get {
                match is_element {
                    true => writer.bulk(self.sorting.texts.of(*item)),
                    false => writer.null(),
                }
            }
        }
        self.written = Some(end);
        end == wanted.len()
    }
}

/// Sorts, then makes a list of what is wanted.
pub(super) struct Listing {
    sorting: Sorting,
    /// What to store of each element: it, or an empty element.
    get: Vec<bool>,
    limits: ListLimits,
    list: Result<List>,
    is_sorted: bool,
}

impl Listing {
    pub(super) fn new(sorting: Sorting, get: Vec<bool>, limits: ListLimits) -> Listing {
        Listing {
            sorting,
            get,
            limits,
            list: Ok(List::new()),
            is_sorted: false,
        }
    }

    fn store_some(&mut self) -> Result<bool> {
        if !self.is_sorted {
            self.is_sorted = self.sorting.advance()?;
            return Ok(false);
        }
        let Ok(list) = &mut self.list else {
            return Ok(true);
        };
        let wanted = self.sorting.wanted();
        let from = list.len() / self.get.len();
        let to = (from + SLICE).min(wanted.len());
        for item in &wanted[from..to] {
            for &is_element in &self.get {
                let text = match is_element {
                    true => self.sorting.texts.of(*item),
                    false => b"",
                };
                list.push(End::Back, text, self.limits);
            }
        }
        if to == wanted.len() {
            list.fit(self.limits);
        }
        Ok(to == wanted.len())
    }
}

impl Work for Listing {
    /// An error if an element is no number.
    type Outcome = Result<List>;

    fn effort(&self) -> usize {
        self.sorting.len()
    }

    fn advance(&mut self) -> bool {
        self.store_some().unwrap_or_else(|error| {
            self.list = Err(error);
            true
        })
    }

    fn outcome(&mut self) -> Result<List> {
        std::mem::replace(&mut self.list, Ok(List::new()))
    }

    fn has_sources_of(&self, begun: &Listing) -> bool {
        match (&self.sorting.source, &begun.sorting.source) {
            (Value::List(one), Value::List(other)) => one.is_same_version(other),
            (Value::Set(one), Value::Set(other)) => one.is_same_version(other),
            (Value::SortedSet(one), Value::SortedSet(other)) => one.is_same_version(other),
            _ => false,
        }
    }
}
