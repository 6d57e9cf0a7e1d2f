//! Sorted sets: time per operation on a million members of 16 bytes, and bytes per member.

use std::{hint::black_box, ops::Bound};

use criterion::{Criterion, criterion_group, criterion_main};
use storage::value::sorted_set::{Limits, SortedSet};

#[global_allocator]
static ALLOCATOR: storage::alloc::Allocator = storage::alloc::Allocator;

const LEN: u64 = 1_000_000;
const LIMITS: Limits = Limits {
    max_listpack_entries: 128,
    max_listpack_value: 64,
};

/// A 16-byte member, in an order that has nothing to do with the number's.
fn member(number: u64) -> [u8; 16] {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut name = [0; 16];
    for (at, byte) in name.iter_mut().enumerate() {
        *byte = b'a' + ((mixed >> (at * 4)) & 15) as u8;
    }
    name
}

/// Pseudo-random numbers.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 1u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 24
    }
}

fn million(mut score: impl FnMut() -> f64) -> SortedSet {
    let before = storage::alloc::allocated_bytes();
    let mut set = SortedSet::new();
    for number in 0..LEN {
        set.insert(&member(number), score(), &LIMITS);
    }
    let allocated = storage::alloc::allocated_bytes() - before;
    let per_member = |bytes: usize| bytes as f64 / LEN as f64;
    println!(
        "bytes per member: {:.1} counted, {:.1} allocated",
        per_member(set.memory_bytes()),
        per_member(allocated)
    );
    set
}

fn random_scores(criterion: &mut Criterion) {
    let mut next = numbers();
    let mut set = million(|| next() as f64);
    let mut group = criterion.benchmark_group("sorted_set/1M");

    group.bench_function("score", |bench| {
        bench.iter(|| black_box(set.score(&member(next() % LEN))));
    });
    group.bench_function("score, none", |bench| {
        bench.iter(|| black_box(set.score(&member(LEN + next() % LEN))));
    });
    group.bench_function("rank", |bench| {
        bench.iter(|| black_box(set.rank(&member(next() % LEN))));
    });
    group.bench_function("range of 10 by rank", |bench| {
        bench.iter(|| {
            let start = (next() % LEN) as usize;
            set.range(start..start + 10)
                .map(|(member, score)| member.len() as f64 + score)
                .sum::<f64>()
        });
    });
    group.bench_function("range of 10 by score", |bench| {
        bench.iter(|| {
            let min = next() as f64;
            let start = set
                .score_range(Bound::Included(min), Bound::Unbounded)
                .start;
            set.range(start..start + 10)
                .map(|(member, score)| member.len() as f64 + score)
                .sum::<f64>()
        });
    });
    group.bench_function("update, +1", |bench| {
        bench.iter(|| {
            set.alter(&member(next() % LEN), &LIMITS, |old| {
                old.map(|old| old + 1.0)
            })
        });
    });
    group.bench_function("update, random score", |bench| {
        bench.iter(|| {
            let score = next() as f64;
            set.insert(&member(next() % LEN), score, &LIMITS)
        });
    });
    group.bench_function("remove and insert", |bench| {
        bench.iter(|| {
            let member = member(next() % LEN);
            set.remove(&member);
            set.insert(&member, next() as f64, &LIMITS)
        });
    });
    group.bench_function("scan 10", |bench| {
        let mut cursor = 0;
        bench.iter(|| {
            cursor = set.scan(cursor, 10, |member, score| {
                black_box((member, score));
            })
        });
    });
    group.bench_function("clone and one update", |bench| {
        bench.iter(|| {
            let clone = set.clone();
            set.insert(&member(next() % LEN), next() as f64, &LIMITS);
            clone
        });
    });
    group.finish();
    println!(
        "bytes per member after updates: {:.1}",
        set.memory_bytes() as f64 / set.len() as f64
    );
}

/// A thousand distinct scores: members decide the order.
fn tied_scores(criterion: &mut Criterion) {
    let mut next = numbers();
    let mut set = million(|| (next() % 1000) as f64);
    let mut group = criterion.benchmark_group("sorted_set/1M tied");
    group.bench_function("score", |bench| {
        bench.iter(|| black_box(set.score(&member(next() % LEN))));
    });
    group.bench_function("rank", |bench| {
        bench.iter(|| black_box(set.rank(&member(next() % LEN))));
    });
    group.bench_function("update, random score", |bench| {
        bench.iter(|| set.insert(&member(next() % LEN), (next() % 1000) as f64, &LIMITS));
    });
    group.finish();
}

fn building(criterion: &mut Criterion) {
    let mut next = numbers();
    let entries: Vec<_> = (0..LEN)
        .map(|number| (member(number), next() as f64))
        .collect();
    let mut group = criterion.benchmark_group("sorted_set/1M build");
    group.sample_size(10);
    group.bench_function("in bulk", |bench| {
        bench.iter_with_large_drop(|| SortedSet::build(&entries, &LIMITS));
    });
    group.bench_function("one by one", |bench| {
        bench.iter_with_large_drop(|| {
            let mut set = SortedSet::new();
            for (member, score) in &entries {
                set.insert(member, *score, &LIMITS);
            }
            set
        });
    });
    group.finish();
}

fn small(criterion: &mut Criterion) {
    let mut next = numbers();
    let mut set = SortedSet::new();
    for number in 0..64 {
        set.insert(&member(number), next() as f64, &LIMITS);
    }
    let mut group = criterion.benchmark_group("sorted_set/64");
    group.bench_function("score", |bench| {
        bench.iter(|| black_box(set.score(&member(next() % 64))));
    });
    group.bench_function("update, random score", |bench| {
        bench.iter(|| set.insert(&member(next() % 64), next() as f64, &LIMITS));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(1))
        .sample_size(20);
    targets = random_scores, tied_scores, building, small
}
criterion_main!(benches);
