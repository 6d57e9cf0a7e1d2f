//! Sets and hashes: time per operation on a million elements and on a small hash, and bytes per element.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use storage::{
    time::Timestamp,
    value::{
        hash::{self, FieldDeadline, Hash},
        set::{self, Set},
    },
};

#[global_allocator]
static ALLOCATOR: storage::alloc::Allocator = storage::alloc::Allocator;

const LEN: u64 = 1_000_000;
const VALUE: [u8; 32] = [b'v'; 32];
const NOW: Timestamp = Timestamp(0);

/// A 16-byte name, in an order that has nothing to do with the number's.
fn name(number: u64) -> [u8; 16] {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut name = [0; 16];
    for (at, byte) in name.iter_mut().enumerate() {
        *byte = b'a' + ((mixed >> (at * 4)) & 15) as u8;
    }
    name
}

/// Numbers below `LEN`, in random order and with repetitions.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 1u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % LEN
    }
}

fn million_members() -> Set {
    let mut set = Set::new();
    for number in 0..LEN {
        set.add(&name(number), &set::Limits::default());
    }
    set
}

fn million_fields() -> Hash {
    let mut hash = Hash::new();
    for number in 0..LEN {
        hash.set(
            &name(number),
            &VALUE,
            FieldDeadline::Clear,
            NOW,
            &hash::Limits::default(),
        );
    }
    hash
}

/// Time per element of building anew, for so many elements.
fn building<T>(elements: u64, build: impl Fn() -> T) -> Duration {
    let start = Instant::now();
    let rounds = elements.div_ceil(LEN);
    for _ in 0..rounds {
        black_box(build());
    }
    start
        .elapsed()
        .mul_f64(elements as f64 / (rounds * LEN) as f64)
}

fn sets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("set of 1M 16-byte members");
    group.sample_size(10);
    group.bench_function("add, growing from empty", |bencher| {
        bencher.iter_custom(|elements| building(elements, million_members));
    });
    let mut set = million_members();
    println!(
        "{:.1} bytes per member",
        set.memory_bytes() as f64 / LEN as f64
    );
    let mut next = numbers();
    group.bench_function("contains, hit", |bencher| {
        bencher.iter(|| set.contains(&name(next())))
    });
    group.bench_function("contains, miss", |bencher| {
        bencher.iter(|| set.contains(&name(next() + LEN)))
    });
    group.bench_function("remove and add", |bencher| {
        bencher.iter(|| {
            let member = name(next());
            set.remove(&member);
            set.add(&member, &set::Limits::default())
        });
    });
    group.bench_function("random member", |bencher| {
        let mut state = 0u64;
        let mut random = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 31)
        };
        bencher.iter(|| black_box(set.random(&mut random)).is_some());
    });
    group.bench_function("scan of 10", |bencher| {
        let mut cursor = 0;
        bencher.iter(|| {
            cursor = set.scan(cursor, 10, |member| {
                black_box(member);
            });
        });
    });
    group.bench_function("clone, and the first write after it", |bencher| {
        bencher.iter(|| {
            let clone = set.clone();
            set.remove(&name(next()));
            clone
        });
    });
}

fn hashes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash of 1M fields of 16 and 32 bytes");
    group.sample_size(10);
    group.bench_function("set, growing from empty", |bencher| {
        bencher.iter_custom(|elements| building(elements, million_fields));
    });
    let mut hash = million_fields();
    println!(
        "{:.1} bytes per field",
        hash.memory_bytes() as f64 / LEN as f64
    );
    let mut next = numbers();
    group.bench_function("get", |bencher| {
        bencher.iter(|| hash.get(&name(next()), NOW).is_some())
    });
    group.bench_function("set, overwriting", |bencher| {
        let limits = hash::Limits::default();
        bencher.iter(|| hash.set(&name(next()), &VALUE, FieldDeadline::Clear, NOW, &limits));
    });
}

fn small_hashes(criterion: &mut Criterion) {
    let limits = hash::Limits::default();
    for fields in [5u8, 50] {
        let mut group = criterion.benchmark_group(format!("hash of {fields} fields"));
        let build = || {
            let mut hash = Hash::new();
            hash.prepare(usize::from(fields), usize::from(fields) * 34, &limits);
            for field in 0..fields {
                hash.set(&[b'f', field], &VALUE, FieldDeadline::Clear, NOW, &limits);
            }
            hash
        };
        let hash = build();
        println!("{} bytes", hash.memory_bytes());
        let mut field = 0;
        group.bench_function("get", |bencher| {
            bencher.iter(|| {
                field = (field + 1) % fields;
                hash.get(&[b'f', field], NOW).is_some()
            });
        });
        group.bench_function("build", |bencher| bencher.iter(build));
    }
}

criterion_group!(benches, sets, hashes, small_hashes);
criterion_main!(benches);
