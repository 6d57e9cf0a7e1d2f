//! The sorted set against a `BTreeSet` and a `HashMap` that do the same, slowly.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    max_listpack_entries: 128,
    max_listpack_value: 64,
};

/// Everything is held packed, as far as clients can see.
const UNLIMITED: Limits = Limits {
    max_listpack_entries: usize::MAX,
    max_listpack_value: usize::MAX,
};

#[derive(Clone, Copy, Debug, PartialEq)]
struct Score(f64);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.partial_cmp(&other.0).unwrap()
    }
}

#[derive(Clone, Default)]
struct Model {
    order: BTreeSet<(Score, Vec<u8>)>,
    scores: HashMap<Vec<u8>, f64>,
}

impl Model {
    fn insert(&mut self, member: &[u8], score: f64) -> Change {
        match self.scores.get(member).copied() {
            Some(old) if old == score => Change::Unchanged,
            Some(old) => {
                self.order.remove(&(Score(old), member.to_vec()));
                self.put(member, score);
                Change::Updated { old }
            }
            None => {
                self.put(member, score);
                Change::Added
            }
        }
    }

    fn put(&mut self, member: &[u8], score: f64) {
        self.order.insert((Score(score), member.to_vec()));
        self.scores.insert(member.to_vec(), score);
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.remove(member)?;
        self.order.remove(&(Score(score), member.to_vec()));
        Some(score)
    }

    fn remove_range(&mut self, ranks: Range<usize>) -> usize {
        let gone: Vec<_> = self
            .order
            .iter()
            .skip(ranks.start)
            .take(ranks.len())
            .cloned()
            .collect();
        for (_, member) in &gone {
            self.remove(member);
        }
        gone.len()
    }

    fn entries(&self) -> Vec<(&[u8], f64)> {
        self.order
            .iter()
            .map(|(score, member)| (member.as_slice(), score.0))
            .collect()
    }
}

/// What to do with the set and the model; numbers choose members and scores, see [`member`] and [`score`].
#[derive(Clone, Debug)]
enum Op {
    /// `count` members, `stride` apart.
    Insert {
        first: u32,
        count: u32,
        stride: u32,
        scores: Scores,
        seed: u32,
    },
    /// Members that are there get new scores.
    Move {
        count: u32,
        by: f64,
        seed: u32,
    },
    Remove {
        first: u32,
        count: u32,
        stride: u32,
    },
    RemoveRange {
        from: f64,
        len: f64,
    },
    PopMin(u32),
    PopMax(u32),
    Clone,
    Compare,
}

#[derive(Clone, Copy, Debug)]
enum Scores {
    Ascending,
    Descending,
    Random,
    Few,
    Same,
}

fn op() -> impl Strategy<Value = Op> {
    let count = prop_oneof![4 => 1..20u32, 2 => 20..400u32, 1 => 400..4000u32];
    let scores = prop_oneof![
        Just(Scores::Ascending),
        Just(Scores::Descending),
        Just(Scores::Random),
        Just(Scores::Few),
        Just(Scores::Same),
    ];
    let stride = prop_oneof![Just(1u32), 1..50u32];
    prop_oneof![
        5 => (0..10_000u32, count.clone(), stride.clone(), scores, any::<u32>())
            .prop_map(|(first, count, stride, scores, seed)| Op::Insert { first, count, stride, scores, seed }),
        3 => (count.clone(), prop_oneof![Just(1.0), Just(1e6), -5.0..5.0], any::<u32>())
            .prop_map(|(count, by, seed)| Op::Move { count, by, seed }),
        3 => (0..10_000u32, count.clone(), stride)
            .prop_map(|(first, count, stride)| Op::Remove { first, count, stride }),
        1 => (0.0..1.0, prop_oneof![0.0..0.02, 0.0..1.1]).prop_map(|(from, len)| Op::RemoveRange { from, len }),
        1 => (1..200u32).prop_map(Op::PopMin),
        1 => (1..200u32).prop_map(Op::PopMax),
        1 => Just(Op::Clone),
        3 => Just(Op::Compare),
    ]
}

fn mix(number: u32) -> u32 {
    (u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 29) as u32
}

/// Mostly short, some long with beginnings in common, one empty.
fn member(number: u32) -> Vec<u8> {
    let name = format!("member:{number:06}");
    match number % 500 {
        0 if number == 0 => Vec::new(),
        1 => format!("{}{name}", "p".repeat(300)).into_bytes(),
        2 => format!("{name}{}", "s".repeat(5_000)).into_bytes(),
        3 => format!("{}{name}", "q".repeat(2_000)).into_bytes(),
        4 => name.as_bytes()[7..].to_vec(),
        _ => name.into_bytes(),
    }
}

fn score(scores: Scores, seed: u32, at: u32) -> f64 {
    match scores {
        Scores::Ascending => f64::from(seed % 1000) * 1e4 + f64::from(at),
        Scores::Descending => -f64::from(seed % 1000) * 1e4 - f64::from(at),
        Scores::Random => match mix(seed ^ at) {
            random if random % 100 == 0 => f64::INFINITY,
            random if random % 100 == 1 => f64::NEG_INFINITY,
            random => f64::from(random) / 3.0 - 1e8,
        },
        Scores::Few => f64::from(mix(seed ^ at) % 4) - 1.0,
        Scores::Same => [0.0, -0.0][at as usize % 2],
    }
}

struct Run {
    set: SortedSet,
    model: Model,
    limits: Limits,
    clones: Vec<(SortedSet, Model)>,
}

impl Run {
    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Insert {
                first,
                count,
                stride,
                scores,
                seed,
            } => {
                for at in 0..count {
                    let (member, score) = (
                        member((first + at * stride) % 10_000),
                        score(scores, seed, at),
                    );
                    let change = self.set.insert(&member, score, &self.limits);
                    assert_eq!(change, self.model.insert(&member, score));
                }
            }
            Op::Move { count, by, seed } => {
                for at in 0..count {
                    let Some(rank) = (mix(seed ^ at) as usize).checked_rem(self.set.len()) else {
                        return;
                    };
                    let (member, score) = self
                        .set
                        .get(rank)
                        .map(|(member, score)| (member.to_vec(), score))
                        .unwrap();
                    let change = self.set.alter(&member, &self.limits, |old| {
                        assert_eq!(old, Some(score));
                        old.map(|old| old + by)
                    });
                    assert_eq!(change, self.model.insert(&member, score + by));
                }
            }
            Op::Remove {
                first,
                count,
                stride,
            } => {
                for at in 0..count {
                    let member = member((first + at * stride) % 10_000);
                    assert_eq!(self.set.remove(&member), self.model.remove(&member));
                }
            }
            Op::RemoveRange { from, len } => {
                let size = self.set.len() as f64;
                let from = (size * from) as usize;
                let ranks = from..from + (size * len) as usize;
                assert_eq!(
                    self.set.remove_range(ranks.clone()),
                    self.model.remove_range(ranks)
                );
            }
            Op::PopMin(count) => {
                self.pop(count, SortedSet::pop_min, |order| order.first().cloned())
            }
            Op::PopMax(count) => self.pop(count, SortedSet::pop_max, |order| order.last().cloned()),
            Op::Clone => self.clones.push((self.set.clone(), self.model.clone())),
            Op::Compare => compare_all(&self.set, &self.model),
        }
    }

    fn pop(
        &mut self,
        count: u32,
        pop: impl Fn(&mut SortedSet) -> Option<(Box<[u8]>, f64)>,
        end: impl Fn(&BTreeSet<(Score, Vec<u8>)>) -> Option<(Score, Vec<u8>)>,
    ) {
        for _ in 0..count {
            let expected =
                end(&self.model.order).map(|(score, member)| (member.into_boxed_slice(), score.0));
            assert_eq!(pop(&mut self.set), expected);
            let Some((member, _)) = expected else { return };
            self.model.remove(&member);
        }
    }
}

fn compare_all(set: &SortedSet, model: &Model) {
    set.check();
    let entries = model.entries();
    assert_eq!(set.len(), entries.len());
    assert!(set.iter().eq(entries.iter().copied()));
    assert!(set.iter().rev().eq(entries.iter().rev().copied()));
    for step in 0..20 {
        let start = entries.len() * step / 19;
        assert_eq!(set.get(start), entries.get(start).copied());
        let range = start..(start + step * 13).min(entries.len());
        assert!(
            set.range(range.clone())
                .eq(entries[range.clone()].iter().copied())
        );
        assert!(
            set.range(range.clone())
                .rev()
                .eq(entries[range.clone()].iter().rev().copied())
        );
        let mut both_ends = set.range(range.clone());
        for (nth, rank) in range.clone().enumerate() {
            let expected = match nth % 2 {
                0 => (both_ends.next(), range.start + nth / 2),
                _ => (both_ends.next_back(), range.end - 1 - nth / 2),
            };
            assert_eq!(expected.0, Some(entries[expected.1]), "{rank}");
        }
        assert!(both_ends.next().is_none() && both_ends.next_back().is_none());
        if let Some((member, score)) = entries.get(start) {
            assert_eq!(set.rank(member), Some((start, *score)));
            assert_eq!(set.score(member), Some(*score));
            compare_score_bounds(set, &entries, *score);
            compare_score_bounds(set, &entries, *score + 0.5);
            let before = |other: &(&[u8], f64)| {
                compare((other.1, other.0), (*score, member)) == Ordering::Less
            };
            let rank = set.partition_point(|member, score| before(&(member, score)));
            assert_eq!(rank, start);
        }
    }
    assert_eq!(set.score(b"nobody"), None);
    assert_eq!(set.rank(b"nobody"), None);
    let mut scanned = BTreeMap::new();
    let mut cursor = 0;
    loop {
        let mut visits = 0;
        cursor = set.scan(cursor, 100, |member, score| {
            visits += 1;
            assert!(
                scanned.insert(member.to_vec(), score).is_none(),
                "visited twice"
            );
        });
        if cursor == 0 {
            break;
        }
        assert!((100..200).contains(&visits));
    }
    assert!(scanned.len() == model.scores.len());
    assert!(
        scanned
            .iter()
            .all(|(member, score)| model.scores[member] == *score)
    );
}

fn compare_score_bounds(set: &SortedSet, entries: &[(&[u8], f64)], score: f64) {
    use Bound::{Excluded, Included, Unbounded};
    let below = entries.partition_point(|entry| entry.1 < score);
    let up_to = entries.partition_point(|entry| entry.1 <= score);
    let all = entries.len();
    assert_eq!(set.score_range(Included(score), Unbounded), below..all);
    assert_eq!(set.score_range(Excluded(score), Unbounded), up_to..all);
    assert_eq!(set.score_range(Unbounded, Included(score)), 0..up_to);
    assert_eq!(set.score_range(Unbounded, Excluded(score)), 0..below);
    assert_eq!(
        set.score_range(Included(score), Included(score)),
        below..up_to
    );
    assert!(set.score_range(Excluded(score), Excluded(score)).is_empty());
}

fn run(ops: &[Op], limits: Limits) {
    let mut run = Run {
        set: SortedSet::new(),
        model: Model::default(),
        limits,
        clones: Vec::new(),
    };
    for op in ops {
        run.apply(op);
    }
    compare_all(&run.set, &run.model);
    for (clone, model) in &run.clones {
        compare_all(clone, model);
        if run.set.is_same_version(clone) {
            compare_all(&run.set, model);
        }
    }
    assert!(run.set.is_same_version(&run.set.clone()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn does_what_the_model_does(ops in prop::collection::vec(op(), 1..60)) {
        run(&ops, LIMITS);
    }

    #[test]
    fn does_what_the_model_does_with_generous_limits(ops in prop::collection::vec(op(), 1..20)) {
        run(&ops, UNLIMITED);
    }

    #[test]
    fn member_ranges_are_those_of_the_model(
        members in prop::collection::btree_set("[a-c]{0,9}", 0..2_000),
        bounds in prop::collection::vec("[a-c]{0,9}", 10),
    ) {
        use Bound::{Excluded, Included, Unbounded};
        let mut set = SortedSet::new();
        for member in &members {
            set.insert(member.as_bytes(), 1.0, &LIMITS);
        }
        let members: Vec<_> = members.iter().map(String::as_bytes).collect();
        for bound in bounds.iter().map(String::as_bytes) {
            let below = members.partition_point(|member| *member < bound);
            let up_to = members.partition_point(|member| *member <= bound);
            prop_assert_eq!(set.member_range(Included(bound), Unbounded), below..members.len());
            prop_assert_eq!(set.member_range(Excluded(bound), Unbounded), up_to..members.len());
            prop_assert_eq!(set.member_range(Unbounded, Included(bound)), 0..up_to);
            prop_assert_eq!(set.member_range(Unbounded, Excluded(bound)), 0..below);
        }
    }

    #[test]
    fn a_bulk_build_equals_insertion(
        count in prop_oneof![0..300usize, 0..20_000usize],
        scores in prop_oneof![Just(Scores::Random), Just(Scores::Few), Just(Scores::Descending)],
        limits in prop_oneof![Just(LIMITS), Just(UNLIMITED)],
    ) {
        let entries: Vec<_> = (0..count as u32).map(|at| (member(at), score(scores, 7, at))).collect();
        let mut model = Model::default();
        for (member, score) in &entries {
            model.insert(member, *score);
        }
        let mut built = SortedSet::build(&entries, &limits).unwrap();
        compare_all(&built, &model);
        let mut inserted = SortedSet::new();
        for (member, score) in &entries {
            inserted.insert(member, *score, &limits);
        }
        prop_assert_eq!(built.encoding(), inserted.encoding());
        for (member, _) in entries.iter().step_by(3) {
            built.remove(member);
            model.remove(member);
        }
        compare_all(&built, &model);
    }
}

#[test]
fn encoding_follows_the_limits() {
    let mut set = SortedSet::new();
    assert_eq!(set.encoding(), Encoding::ListPack);
    for number in 0..128u32 {
        set.insert(&member(number + 10), 1.0, &LIMITS);
    }
    assert_eq!(set.encoding(), Encoding::ListPack);
    set.insert(b"one more", 1.0, &LIMITS);
    assert_eq!(set.encoding(), Encoding::SkipList);
    set.remove_range(5..129);
    assert_eq!(set.encoding(), Encoding::SkipList, "it does not go back");

    let mut long = SortedSet::new();
    long.insert(&[b'x'; 64], 1.0, &LIMITS);
    assert_eq!(long.encoding(), Encoding::ListPack);
    long.insert(&[b'x'; 65], 1.0, &LIMITS);
    assert_eq!(long.encoding(), Encoding::SkipList);

    let mut many = SortedSet::new();
    for number in 0..5_000u32 {
        many.insert(&number.to_le_bytes(), 1.0, &UNLIMITED);
    }
    assert!(matches!(many.0, Repr::Indexed(_)));
    assert_eq!(many.encoding(), Encoding::ListPack);
    many.insert(b"under other limits", 1.0, &LIMITS);
    assert_eq!(many.encoding(), Encoding::SkipList);
}

#[test]
fn a_build_refuses_duplicates_and_nan() {
    for count in [2u32, 100, 5_000] {
        let mut entries: Vec<_> = (0..count)
            .map(|number| (member(number), f64::from(number)))
            .collect();
        entries.push((member(1), 1e9));
        assert_eq!(
            SortedSet::build(&entries, &LIMITS).err(),
            Some(BuildError::DuplicateMember)
        );
        entries.pop();
        entries[1].1 = f64::NAN;
        assert_eq!(
            SortedSet::build(&entries, &LIMITS).err(),
            Some(BuildError::NotANumber)
        );
    }
}

#[test]
fn the_sign_of_zero_is_kept_by_large_sets_only_and_does_not_count() {
    let never_packed = Limits {
        max_listpack_entries: 0,
        ..LIMITS
    };
    for (limits, is_kept) in [(LIMITS, false), (never_packed, true)] {
        let mut set = SortedSet::new();
        set.insert(b"b", -0.0, &limits);
        set.insert(b"a", 0.0, &limits);
        assert_eq!(set.insert(b"b", 0.0, &limits), Change::Unchanged);
        assert_eq!(set.score(b"b").unwrap().is_sign_negative(), is_kept);
        assert_eq!(set.rank(b"b").unwrap().0, 1);
    }
}

#[test]
fn a_small_set_can_be_made_a_skip_list() {
    let mut set = SortedSet::new();
    set.insert(b"b", 2.0, &LIMITS);
    set.insert(b"a", 1.0, &LIMITS);
    set.make_skip_list();
    set.check();
    assert_eq!(set.encoding(), Encoding::SkipList);
    assert_eq!(set.rank(b"b"), Some((1, 2.0)));
}

#[test]
fn a_scan_visits_who_stays_whatever_else_happens() {
    let stays = |number: u32| number.is_multiple_of(3);
    let mut set = SortedSet::new();
    for number in 0..6_000 {
        set.insert(&member(number), f64::from(number % 7), &LIMITS);
    }
    let mut visits: HashMap<Vec<u8>, usize> = HashMap::new();
    let (mut cursor, mut round) = (0, 0);
    loop {
        cursor = set.scan(cursor, 10, |member, _| {
            *visits.entry(member.to_vec()).or_default() += 1
        });
        if cursor == 0 {
            break;
        }
        for nth in 0..40 {
            let number = mix(round * 40 + nth) % 6_000;
            match (stays(number), nth % 2) {
                (true, _) => drop(set.insert(&member(number), f64::from(mix(round)), &LIMITS)),
                (false, 0) => drop(set.remove(&member(number))),
                (false, _) => drop(set.insert(&member(number + 6_000), 3.0, &LIMITS)),
            }
        }
        round += 1;
    }
    for number in (0..6_000).filter(|number| stays(*number)) {
        assert_eq!(visits.get(&member(number)), Some(&1));
    }
    set.check();
}

#[test]
fn a_scan_cursor_from_nowhere_ends_the_scan() {
    let mut set = SortedSet::new();
    for number in 0..1_000u32 {
        set.insert(&number.to_le_bytes(), 0.0, &LIMITS);
    }
    assert_eq!(set.scan(u64::MAX, 10, |_, _| panic!("nothing is there")), 0);
    assert_eq!(set.scan(1 << 32, 10, |_, _| panic!("nothing is there")), 0);
}

#[test]
fn members_may_be_longer_than_a_leaf() {
    let mut set = SortedSet::new();
    let long = |number: u8| [vec![b'x'; 100_000], vec![number]].concat();
    for number in (0..60).step_by(2).chain((1..60).step_by(2)) {
        set.insert(&long(number), 1.0, &LIMITS);
        set.insert(&[number], 1.0, &LIMITS);
        set.check();
    }
    for number in 0..60 {
        assert_eq!(
            set.rank(&long(number)),
            Some((60 + usize::from(number), 1.0))
        );
    }
    for number in 0..60 {
        set.insert(&long(number), f64::from(number % 5), &LIMITS);
    }
    set.check();
    for number in 0..60 {
        assert_eq!(set.remove(&long(number)), Some(f64::from(number % 5)));
    }
    set.check();
    assert_eq!(set.len(), 60);
    assert!(set.memory_bytes() < 20_000, "{}", set.memory_bytes());
}

#[test]
fn a_set_can_be_shared_and_freed_by_other_threads() {
    let mut set = SortedSet::new();
    for number in 0..5_000 {
        set.insert(&member(number), f64::from(number), &LIMITS);
    }
    let clone = set.clone();
    let reader = std::thread::spawn(move || clone.iter().map(|(_, score)| score).sum::<f64>());
    for number in 0..5_000 {
        set.insert(&member(number), -1.0, &LIMITS);
    }
    assert_eq!(reader.join().unwrap(), (0..5_000).map(f64::from).sum());
    set.check();
}

/// A set of so many 16-byte members with random scores, inserted one by one.
fn grown(count: u32) -> SortedSet {
    let mut set = SortedSet::new();
    for number in 0..count {
        set.insert(
            format!("member:{number:09}").as_bytes(),
            f64::from(mix(number)),
            &LIMITS,
        );
    }
    set
}

fn bytes_per_member(set: &SortedSet) -> f64 {
    set.memory_bytes() as f64 / set.len() as f64
}

#[test]
fn a_member_of_16_bytes_takes_at_most_44_and_stays_below_48_under_updates() {
    let count = 200_000;
    let mut set = grown(count);
    let fresh = bytes_per_member(&set);
    assert!(fresh <= 44.0, "{fresh}");
    for number in 0..2 * count {
        let member = format!("member:{:09}", mix(number) % count);
        set.insert(member.as_bytes(), f64::from(mix(!number)), &LIMITS);
    }
    let updated = bytes_per_member(&set);
    assert!(updated <= 48.0, "{updated}");
    let entries: Vec<_> = set.iter().collect();
    let built = bytes_per_member(&SortedSet::build(&entries, &LIMITS).unwrap());
    assert!(built <= 40.0, "{built}");
    println!("bytes per member: fresh {fresh:.1}, updated {updated:.1}, built {built:.1}");
}

#[test]
fn appending_and_shrinking_leave_no_waste() {
    let mut set = SortedSet::new();
    let count = 100_000;
    for number in 0..count {
        set.insert(
            format!("member:{number:09}").as_bytes(),
            f64::from(number),
            &LIMITS,
        );
    }
    let appended = bytes_per_member(&set);
    assert!(appended <= 40.0, "{appended}");
    for number in (0..count).filter(|number| number % 100 != 0) {
        set.remove(format!("member:{number:09}").as_bytes());
    }
    let thinned = bytes_per_member(&set);
    assert!(thinned <= 64.0, "{thinned}");
    set.check();
    println!("bytes per member: appended {appended:.1}, thinned {thinned:.1}");
}
