//! Which key comes next: every key alike, a few hot ones (Zipf), a bell curve (Gaussian), or one after the other.
//!
//! Popularity and place are kept apart: rank 0 is the hottest, and a multiplication modulo the number of keys scatters the
//! ranks over the key numbers. Keys are loaded by number, so without it the hot keys would also be neighbours in memory.

use std::str::FromStr;

/// SplitMix64: one addition and a few multiplications per number, good enough to choose keys.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; the bias for bounds far below 2^64 is immeasurable.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How often each key is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Popularity {
    Uniform,
    /// The k-th hottest key with probability proportional to `1 / k^theta`.
    Zipf(f64),
    /// Normally distributed over the key numbers, with this standard deviation as a share of all keys.
    Gaussian(f64),
}

impl FromStr for Popularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, parameter) = text
            .split_once(':')
            .map_or((text, None), |(name, parameter)| (name, Some(parameter)));
        let number = |default: f64| match parameter {
            None => Ok(default),
            Some(parameter) => match parameter.parse::<f64>() {
                Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
                _ => Err(format!("{parameter} is not a positive number")),
            },
        };
        match name {
            "uniform" if parameter.is_none() => Ok(Self::Uniform),
            "zipf" => Ok(Self::Zipf(number(0.99)?)),
            "gaussian" => Ok(Self::Gaussian(number(1.0 / 6.0)?)),
            _ => Err("expected uniform, zipf[:theta] or gaussian[:deviation]".into()),
        }
    }
}

/// Draws key numbers in `0..count`.
#[derive(Clone)]
pub(crate) struct KeyPicker {
    random: Random,
    count: u64,
    order: Order,
}

#[derive(Clone)]
enum Order {
    Uniform,
    Zipf { zipf: Zipf, scatter: u64 },
    Gaussian { deviation: f64, scatter: u64 },
    Sequential { from: u64, next: u64, to: u64 },
}

impl KeyPicker {
    pub(crate) fn new(count: u64, popularity: Popularity, seed: u64) -> Self {
        let scatter = scatter_factor(count);
        let order = match popularity {
            Popularity::Uniform => Order::Uniform,
            Popularity::Zipf(theta) => Order::Zipf {
                zipf: Zipf::new(count, theta),
                scatter,
            },
            Popularity::Gaussian(share) => Order::Gaussian {
                deviation: share * count as f64,
                scatter,
            },
        };
        Self {
            random: Random::new(seed),
            count,
            order,
        }
    }

    /// `from`, `from + 1` ... `to - 1`, and again from the start.
    pub(crate) fn sequential(from: u64, to: u64, seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            count: to,
            order: Order::Sequential {
                from,
                next: from,
                to,
            },
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        match &mut self.order {
            Order::Uniform => self.random.below(self.count),
            Order::Zipf { zipf, scatter } => {
                scattered(zipf.rank(&mut self.random), *scatter, self.count)
            }
            Order::Gaussian { deviation, scatter } => {
                let number = gaussian(&mut self.random, self.count, *deviation);
                scattered(number, *scatter, self.count)
            }
            Order::Sequential { from, next, to } => {
                let number = *next;
                *next = if number + 1 < *to { number + 1 } else { *from };
                number
            }
        }
    }

    /// A number that has nothing to do with the keys.
    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

/// A multiplier coprime to `count`, so that multiplying modulo `count` is a permutation.
fn scatter_factor(count: u64) -> u64 {
    let mut factor = 2_654_435_761 % count.max(1);
    while greatest_common_divisor(factor, count) != 1 {
        factor += 1;
    }
    factor
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn scattered(rank: u64, factor: u64, count: u64) -> u64 {
    ((u128::from(rank) * u128::from(factor)) % u128::from(count)) as u64
}

/// Marsaglia's polar method, drawn again when it falls outside the keys.
fn gaussian(random: &mut Random, count: u64, deviation: f64) -> u64 {
    loop {
        let (u, v) = (2.0 * random.unit() - 1.0, 2.0 * random.unit() - 1.0);
        let square = u * u + v * v;
        if square >= 1.0 || square == 0.0 {
            continue;
        }
        let normal = u * (-2.0 * square.ln() / square).sqrt();
        let number = count as f64 / 2.0 + normal * deviation;
        if number >= 0.0 && number < count as f64 {
            return number as u64;
        }
    }
}

/// Zipf's distribution over `1..=count` by rejection-inversion: constant time and memory for any number of keys.
///
/// Source: W. Hörmann, G. Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions", 1996.
#[derive(Clone)]
struct Zipf {
    count: f64,
    theta: f64,
    integral_first: f64,
    integral_last: f64,
    /// Within this distance a rounded draw is accepted without computing the rejection test.
    sure: f64,
}

impl Zipf {
    fn new(count: u64, theta: f64) -> Self {
        let count = count as f64;
        Self {
            count,
            theta,
            integral_first: integral(1.5, theta) - 1.0,
            integral_last: integral(count + 0.5, theta),
            sure: 2.0 - inverse_integral(integral(2.5, theta) - density(2.0, theta), theta),
        }
    }

    /// 0 for the hottest.
    fn rank(&self, random: &mut Random) -> u64 {
        loop {
            let drawn =
                self.integral_last + random.unit() * (self.integral_first - self.integral_last);
            let place = inverse_integral(drawn, self.theta);
            let rank = place.round().clamp(1.0, self.count);
            if rank - place <= self.sure
                || drawn >= integral(rank + 0.5, self.theta) - density(rank, self.theta)
            {
                return rank as u64 - 1;
            }
        }
    }
}

fn density(x: f64, theta: f64) -> f64 {
    x.powf(-theta)
}

/// The integral of the density from 1 to `x`.
fn integral(x: f64, theta: f64) -> f64 {
    if (theta - 1.0).abs() < 1e-9 {
        x.ln()
    } else {
        (x.powf(1.0 - theta) - 1.0) / (1.0 - theta)
    }
}

fn inverse_integral(y: f64, theta: f64) -> f64 {
    if (theta - 1.0).abs() < 1e-9 {
        y.exp()
    } else {
        (1.0 + y * (1.0 - theta)).powf(1.0 / (1.0 - theta))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(count: u64, popularity: Popularity, draws: u32) -> Vec<u32> {
        let mut picker = KeyPicker::new(count, popularity, 7);
        let mut seen = vec![0; count as usize];
        for _ in 0..draws {
            seen[picker.next() as usize] += 1;
        }
        seen
    }

    #[test]
    fn zipf_draws_each_rank_as_often_as_the_formula_says() {
        for theta in [0.5, 0.99, 1.0, 1.3] {
            let (count, draws) = (100, 400_000);
            let zipf = Zipf::new(count, theta);
            let mut random = Random::new(3);
            let mut seen = vec![0u32; count as usize];
            for _ in 0..draws {
                seen[zipf.rank(&mut random) as usize] += 1;
            }
            let norm: f64 = (1..=count).map(|k| (k as f64).powf(-theta)).sum();
            for rank in [0, 1, 2, 9, 49, 99] {
                let expected = f64::from(draws) * ((rank + 1) as f64).powf(-theta) / norm;
                let slack = 5.0 * expected.sqrt();
                assert!(
                    (f64::from(seen[rank]) - expected).abs() < slack,
                    "theta {theta} rank {rank}: {} for {expected}",
                    seen[rank]
                );
            }
        }
    }

    #[test]
    fn uniform_reaches_every_key_about_equally() {
        let seen = histogram(100, Popularity::Uniform, 100_000);
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)));
    }

    #[test]
    fn zipf_is_as_hot_after_scattering() {
        let mut seen = histogram(1000, Popularity::Zipf(0.99), 100_000);
        let first = seen[0];
        seen.sort_unstable();
        assert_eq!(first, seen[999], "rank 0 stays at key 0");
        assert!(seen[998] > seen[900] && seen[900] > seen[500]);
    }

    #[test]
    fn gaussian_keeps_two_thirds_within_one_deviation() {
        let mut random = Random::new(1);
        let near = (0..100_000)
            .filter(|_| (400..600).contains(&gaussian(&mut random, 1000, 100.0)))
            .count();
        assert!((67_000..69_500).contains(&near), "{near}");
    }

    #[test]
    fn scattering_is_a_permutation() {
        for count in [1, 2, 7, 10, 1000, 2_654_435_761 % 5000] {
            let factor = scatter_factor(count);
            let mut all: Vec<u64> = (0..count)
                .map(|rank| scattered(rank, factor, count))
                .collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count), "{count}");
        }
    }

    #[test]
    fn sequential_goes_round() {
        let mut picker = KeyPicker::sequential(3, 6, 0);
        let drawn: Vec<u64> = (0..5).map(|_| picker.next()).collect();
        assert_eq!(drawn, [3, 4, 5, 3, 4]);
    }

    #[test]
    fn popularity_is_read_from_text() {
        assert_eq!("uniform".parse(), Ok(Popularity::Uniform));
        assert_eq!("zipf".parse(), Ok(Popularity::Zipf(0.99)));
        assert_eq!("zipf:1.2".parse(), Ok(Popularity::Zipf(1.2)));
        assert_eq!("gaussian:0.1".parse(), Ok(Popularity::Gaussian(0.1)));
        for wrong in ["zip", "zipf:-1", "zipf:x", "uniform:2", ""] {
            assert!(wrong.parse::<Popularity>().is_err(), "{wrong}");
        }
    }
}
