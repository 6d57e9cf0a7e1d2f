//! Sorts only as far as a reply shows.
//!
//! Which of several members at one distance come first is nothing that distances tell, but clients and tests that were
//! written against Valkey have seen an order: that of the quicksort with three-way partitions (Bentley and McIlroy,
//! "Engineering a sort function", 1993), which leaves parts alone that nobody asked for. The same steps give the same
//! order here.

use std::cmp::Ordering;

/// Parts shorter than this are sorted by insertion.
const INSERTION_MAX: usize = 7;
/// Longer parts choose their pivot from nine elements instead of three.
const NINTHER_MIN: usize = 40;

/// Brings the `wanted` smallest to the front, sorted; the rest is in any order. O(n), and O(wanted log n) for the front.
pub(super) fn sort_front<T>(items: &mut [T], wanted: usize, compare: &impl Fn(&T, &T) -> Ordering) {
    // Chosen pivots can be bad for ever: then another sort takes over.
    let depth = 2 * (items.len() | 1).ilog2() + 8;
    sort_part(items, wanted, compare, depth);
}

fn sort_part<T>(
    mut items: &mut [T],
    mut wanted: usize,
    compare: &impl Fn(&T, &T) -> Ordering,
    mut depth: u32,
) {
    loop {
        let len = items.len();
        if len < INSERTION_MAX {
            return insert(items, compare);
        }
        if depth == 0 {
            return items.sort_by(compare);
        }
        depth -= 1;
        let pivot = pivot(items, compare);
        items.swap(0, pivot);
        let (smaller, greater) = partition(items, compare);
        if smaller > 1 {
            sort_part(&mut items[..smaller], wanted, compare, depth);
        }
        let start = len - greater;
        if greater <= 1 || start >= wanted {
            return;
        }
        items = &mut items[start..];
        wanted -= start;
    }
}

fn insert<T>(items: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) {
    for end in 1..items.len() {
        let mut at = end;
        while at > 0 && compare(&items[at - 1], &items[at]).is_gt() {
            items.swap(at - 1, at);
            at -= 1;
        }
    }
}

fn pivot<T>(items: &[T], compare: &impl Fn(&T, &T) -> Ordering) -> usize {
    let len = items.len();
    let (mut low, mut middle, mut high) = (0, len / 2, len - 1);
    if len > NINTHER_MIN {
        let step = len / 8;
        low = median(items, [low, low + step, low + 2 * step], compare);
        middle = median(items, [middle - step, middle, middle + step], compare);
        high = median(items, [high - 2 * step, high - step, high], compare);
    }
    if len > INSERTION_MAX {
        middle = median(items, [low, middle, high], compare);
    }
    middle
}

fn median<T>(items: &[T], [a, b, c]: [usize; 3], compare: &impl Fn(&T, &T) -> Ordering) -> usize {
    let order = |one: usize, other: usize| compare(&items[one], &items[other]);
    if order(a, b).is_lt() {
        match (order(b, c).is_lt(), order(a, c).is_lt()) {
            (true, _) => b,
            (false, true) => c,
            (false, false) => a,
        }
    } else {
        match (order(b, c).is_gt(), order(a, c).is_lt()) {
            (true, _) => b,
            (false, true) => a,
            (false, false) => c,
        }
    }
}

/// Parts the items by the first: smaller ones, equal ones, greater ones. Returns how many are smaller and greater.
fn partition<T>(items: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) -> (usize, usize) {
    let len = items.len();
    // Equal ones gather at both ends: before `equal_low`, and from `equal_high` on. What is between `low` and `high`
    // has not been seen yet.
    let (mut equal_low, mut low) = (1, 1);
    let (mut high, mut equal_high) = (len, len);
    loop {
        while low < high {
            match compare(&items[low], &items[0]) {
                Ordering::Greater => break,
                Ordering::Equal => {
                    items.swap(equal_low, low);
                    equal_low += 1;
                }
                Ordering::Less => {}
            }
            low += 1;
        }
        while low < high {
            match compare(&items[high - 1], &items[0]) {
                Ordering::Less => break,
                Ordering::Equal => {
                    items.swap(high - 1, equal_high - 1);
                    equal_high -= 1;
                }
                Ordering::Greater => {}
            }
            high -= 1;
        }
        if low >= high {
            break;
        }
        items.swap(low, high - 1);
        low += 1;
        high -= 1;
    }
    let (smaller, greater) = (low - equal_low, equal_high - high);
    swap_blocks(items, 0, low, equal_low.min(smaller));
    swap_blocks(items, low, len, greater.min(len - equal_high));
    (smaller, greater)
}

/// Exchanges `count` items from `start` on with the `count` items before `end`.
fn swap_blocks<T>(items: &mut [T], start: usize, end: usize, count: usize) {
    for index in 0..count {
        items.swap(start + index, end - count + index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_that_of_a_sort() {
        let mut state = 1u64;
        for len in [0, 1, 2, 6, 7, 8, 40, 41, 100, 1000] {
            for range in [2, 10, 1000] {
                let items: Vec<u64> = (0..len)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        (state >> 33) % range
                    })
                    .collect();
                let mut sorted = items.clone();
                sorted.sort_unstable();
                for wanted in [0, 1, 5, len / 2, len] {
                    let mut front = items.clone();
                    sort_front(&mut front, wanted, &u64::cmp);
                    let wanted = wanted.min(len);
                    assert_eq!(front[..wanted], sorted[..wanted], "{wanted} of {items:?}");
                }
            }
        }
    }

    #[test]
    fn bad_pivots_do_not_make_it_slow() {
        // Ascending then descending is far from random; the bound on the depth holds for any input.
        let mut items: Vec<u32> = (0..50_000).chain((0..50_000).rev()).collect();
        sort_front(&mut items, 100_000, &u32::cmp);
        assert!(items.is_sorted());
    }
}
